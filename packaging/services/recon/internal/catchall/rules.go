package catchall

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the table of the rules, in family inet.
const tableName = "recon"

// ifaceNameSize is IFNAMSIZ.
const ifaceNameSize = 16

// Rules are the rules in the kernel. They vanish with the namespace.
type Rules struct {
	options []nftables.ConnOption
}

// Install writes the rules in one transaction: TCP that arrives at the
// interface for an address of this host goes to the listener's port, UDP is
// dropped without an ICMP error. What comes from the collector is left alone.
// It replaces rules that an earlier run left. It needs CAP_NET_ADMIN.
func Install(iface string, collector netip.Addr, port uint16, options ...nftables.ConnOption) (*Rules, error) {
	conn, err := nftables.New(options...)
	if err != nil {
		return nil, fmt.Errorf("install rules: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	// Adding it first makes the deletion succeed when there is none.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	addDivert(conn, table, iface, collector, port)
	addSilence(conn, table, iface, collector)
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("install rules: %w", err)
	}
	return &Rules{options: options}, nil
}

// Remove takes the rules away.
func (r *Rules) Remove() error {
	conn, err := nftables.New(r.options...)
	if err != nil {
		return fmt.Errorf("remove rules: %w", err)
	}
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove rules: %w", err)
	}
	return nil
}

func addDivert(conn *nftables.Conn, table *nftables.Table, iface string, collector netip.Addr, port uint16) {
	accept := nftables.ChainPolicyAccept
	chain := conn.AddChain(&nftables.Chain{
		Name: "divert", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle, Policy: &accept,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(
		arrivesAt(iface), from(collector), verdict(expr.VerdictAccept),
	)})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(
		arrivesAt(iface), forThisHost(), protocol(unix.IPPROTO_TCP),
		[]expr.Any{
			&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
			&expr.TProxy{Family: unix.NFPROTO_UNSPEC, TableFamily: unix.NFPROTO_INET, RegPort: 1},
		},
		verdict(expr.VerdictAccept),
	)})
}

func addSilence(conn *nftables.Conn, table *nftables.Table, iface string, collector netip.Addr) {
	accept := nftables.ChainPolicyAccept
	chain := conn.AddChain(&nftables.Chain{
		Name: "silence", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &accept,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(
		arrivesAt(iface), from(collector), verdict(expr.VerdictAccept),
	)})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(
		arrivesAt(iface), protocol(unix.IPPROTO_UDP), verdict(expr.VerdictDrop),
	)})
}

func join(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

func arrivesAt(iface string) []expr.Any {
	name := make([]byte, ifaceNameSize)
	copy(name, iface)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
	}
}

func forThisHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
	}
}

func from(addr netip.Addr) []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), uint32(12)
	if addr.Is6() {
		family, offset = unix.NFPROTO_IPV6, 8
	}
	bytes := addr.AsSlice()
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(bytes))}, // #nosec G115 -- 4 or 16
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: bytes},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind}}
}
