package passage

import (
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// A table with an owner, as releases of firewalld from 2.1 on make theirs,
// cannot be changed by anybody else. The state says what to do, the log says it
// once, and the heals do not count what did not heal.
func TestNetnsOwnedTable(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	own(t, h, "add table inet firewalld { flags owner; chain f { type filter hook forward priority 0; policy drop; }; }")
	core, logged := observer.New(zapcore.ErrorLevel)
	p, err := New(zap.New(core), sensorID, nft.Config{NetNS: h.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		found, err := p.Ensure(t.Context(), config(helperapi.EgressDeny))
		if err != nil || len(found) != 1 || found[0].Passage != "" || !strings.Contains(found[0].Problem, "NftablesTableOwner=no") ||
			!strings.Contains(found[0].Problem, `by hand: inet firewalld f: iifname "svc0"`) {
			t.Errorf("found %+v, %v", found, err)
		}
	}
	if heals, _ := p.Heals(); heals != 0 || logged.Len() != 1 {
		t.Errorf("%d heals, %d errors in the log", heals, logged.Len())
	}
	if err := p.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// own has a command of nft done by a process that lives until the test ends.
func own(t *testing.T, h *nettest.Host, command string) {
	t.Helper()
	cmd := exec.Command("nft", "-i")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	if _, err := io.WriteString(in, command+"\n"); err != nil {
		t.Fatal(err)
	}
	err = waitFor(10*time.Second, func() error { _, err := h.Try("nft", "list", "table", "inet", "firewalld"); return err })
	if err != nil {
		t.Fatal(err)
	}
}
