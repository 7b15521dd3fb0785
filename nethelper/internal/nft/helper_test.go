package nft

import (
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"testing"

	"github.com/google/nftables"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/nettest"
)

func sortStrings(list []string) { sort.Strings(list) }

// loadText loads a table as an operator would.
func loadText(t testing.TB, h *nettest.Host, table *ruleset.Table) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "table.nft")
	if err := os.WriteFile(path, []byte(table.Text()), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Run("nft", "-f", path)
}

// seedFlow writes a UDP flow of the host as a packet would.
func seedFlow(t testing.TB, table *Table) {
	t.Helper()
	key := append(netip.MustParseAddr("192.0.2.1").AsSlice(), 0x03, 0xe8, 0, 0)
	key = append(key, netip.MustParseAddr("192.0.2.2").AsSlice()...)
	key = append(key, 0, 53, 0, 0)
	tx := transaction{conn: table.writer, table: kernelTable(table.want)}
	if err := tx.conn.SetAddElements(tx.set(table.want.Set("own4")), []nftables.SetElement{{Key: key}}); err != nil {
		t.Fatal(err)
	}
	if err := table.flush(); err != nil {
		t.Fatal(err)
	}
}
