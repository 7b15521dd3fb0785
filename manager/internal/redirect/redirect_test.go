package redirect

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"honeysens.org/dockersensor/shared/nettest"
)

func config(keep ...uint16) Config {
	return Config{Sensor: netip.MustParseAddr("172.18.0.2"), Interface: "eth0", Keep: keep}
}

func TestKeptPorts(t *testing.T) {
	for _, rules := range []string{IPTables(config(443, 22, 22)), NFTables(config(443, 22, 22))} {
		if !strings.Contains(rules, "22,443") && !strings.Contains(rules, "22, 443") {
			t.Errorf("ports are not kept:\n%s", rules)
		}
	}
}

// TestNetnsRulesAreAccepted has the kernel take what an operator would enter.
func TestNetnsRulesAreAccepted(t *testing.T) {
	nettest.Need(t, "iptables-nft", "nft")
	for name, cfg := range map[string]Config{"kept ports": config(22, 443), "all": config()} {
		t.Run(name, func(t *testing.T) {
			host := nettest.NewHost(t, "host")
			host.Run("iptables-nft", "-N", "DOCKER-USER")
			for line := range strings.Lines(IPTables(cfg)) {
				words := strings.Fields(line)
				host.Run("iptables-nft", words[1:]...)
			}
			file := filepath.Join(t.TempDir(), "rules")
			if err := os.WriteFile(file, []byte(NFTables(cfg)), 0o600); err != nil {
				t.Fatal(err)
			}
			host.Run("nft", "-f", file)
		})
	}
}
