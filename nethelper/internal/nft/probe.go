package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
)

// probeName is the name of tables that are made and removed in one transaction,
// so nobody ever sees them.
const probeName = "honeysens-probe"

// Probe finds out what the kernel lacks by asking for it.
func Probe(cfg Config) (ruleset.Lacks, error) {
	accept := nftables.ChainPolicyAccept
	ports, err := refuses(cfg, nftables.TableFamilyBridge, func(conn *nftables.Conn, table *nftables.Table) {
		conn.AddChain(&nftables.Chain{
			Name: "probe", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting,
			Priority: nftables.ChainPriorityFilter, Policy: &accept,
		})
	})
	if err != nil {
		return ruleset.Lacks{}, err
	}
	tracked, err := refuses(cfg, nftables.TableFamilyINet, func(conn *nftables.Conn, table *nftables.Table) {
		chain := conn.AddChain(&nftables.Chain{Name: "probe", Table: table})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Connlimit{Count: 1}}})
	})
	return ruleset.Lacks{Ports: ports, Tracked: tracked}, err
}

// refuses tells whether the kernel does not know what is put into a table. It
// uses a connection of its own: after an error answers are left unread.
func refuses(cfg Config, family nftables.TableFamily, put func(*nftables.Conn, *nftables.Table)) (bool, error) {
	conn, err := Dial(cfg)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.CloseLasting() }()
	table := conn.AddTable(&nftables.Table{Name: probeName, Family: family})
	put(conn, table)
	conn.DelTable(table)
	switch err := conn.Flush(); {
	case err == nil:
		return false, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		return true, nil
	default:
		return false, fmt.Errorf("ask what the kernel can do: %w", err)
	}
}
