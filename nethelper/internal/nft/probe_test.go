package nft

import (
	"testing"

	"github.com/google/nftables"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/nettest"
)

func TestNetnsProbeAsksAndLeavesNothing(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	where := Config{NetNS: h.Fd()}
	if lacks, err := Probe(where); err != nil || lacks != (ruleset.Lacks{}) {
		t.Errorf("this kernel lacks %+v, %v", lacks, err)
	}
	// What no kernel has is refused as what an old one has not.
	accept := nftables.ChainPolicyAccept
	lacks, err := refuses(where, nftables.TableFamilyBridge, func(conn *nftables.Conn, table *nftables.Table) {
		conn.AddChain(&nftables.Chain{
			Name: "probe", Table: table, Type: "nonsense", Hooknum: nftables.ChainHookPrerouting,
			Priority: nftables.ChainPriorityFilter, Policy: &accept,
		})
	})
	if err != nil || !lacks {
		t.Errorf("a chain of a type that does not exist: lacks %v, %v", lacks, err)
	}
	if out := h.Run("nft", "list", "ruleset"); out != "" {
		t.Errorf("left behind:\n%s", out)
	}
}
