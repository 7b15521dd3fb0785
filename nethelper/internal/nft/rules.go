package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ForeignRule is a rule that somebody else may have written. It is not decoded
// further than needed: a rule of a kind that nobody has heard of yet must not
// keep a sensor from working.
type ForeignRule struct {
	Chain  string
	Handle uint64
	// Comment is the one that nft or the iptables programs have written.
	Comment string
	// Verdict is what becomes of the packets that the rule matches.
	Verdict Verdict
	// Jumps is the chain where the rule sends them.
	Jumps string
	// On are conditions about interfaces. Conditional is true when there are
	// others, but for protocols and new connections: an attacker has both.
	On          []OnInterface
	Conditional bool
	// AcceptsDNAT is true when the rule accepts whatever has had its destination
	// translated.
	AcceptsDNAT bool
}

// Verdict is the end of a rule.
type Verdict int

// The verdicts that matter here. A rule without any, or with another, goes on.
const (
	GoesOn Verdict = iota
	Accepts
	Blocks
	Returns
)

// BlocksAll tells whether the rule drops or rejects every packet.
func (r ForeignRule) BlocksAll() bool { return r.Verdict == Blocks && r.always() }

// JumpsAll is the chain where the rule sends every packet, or "".
func (r ForeignRule) JumpsAll() string {
	if r.always() {
		return r.Jumps
	}
	return ""
}

func (r ForeignRule) always() bool { return len(r.On) == 0 && !r.Conditional }

// OnInterface is a condition about the interface that a packet came by, or leaves
// by.
type OnInterface struct {
	Out bool
	// Not turns the condition round.
	Not bool
	// Name is that of the interface, or with Prefix how names begin. Without a
	// name it is the one with that Index.
	Name   string
	Prefix bool
	Index  uint32
}

// ListRules returns the rules of a table, those of each chain in their order. A
// table that does not exist has none.
func ListRules(cfg Config, table *nftables.Table) ([]ForeignRule, error) {
	return listRules(cfg, table.Family, table.Name)
}

func listRules(cfg Config, family nftables.TableFamily, table string) ([]ForeignRule, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: cfg.NetNS})
	if err != nil {
		return nil, fmt.Errorf("open netfilter connection: %w", err)
	}
	defer func() { _ = conn.Close() }()
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table), 0)}})
	if err != nil {
		return nil, err
	}
	const getRule = netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE)
	answer, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: getRule, Flags: netlink.Request | netlink.Dump},
		Data:   append(nfgen(byte(family), 0), attrs...),
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list rules of %s: %w", table, err)
	}
	rules := make([]ForeignRule, 0, len(answer))
	for _, msg := range answer {
		rule, err := parseRule(msg.Data)
		if err != nil {
			return nil, fmt.Errorf("read rule of %s: %w", table, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

var errShort = errors.New("message is too short")

// parseRule reads the attributes of NFT_MSG_NEWRULE.
func parseRule(data []byte) (ForeignRule, error) {
	var r ForeignRule
	if len(data) < 4 {
		return r, errShort
	}
	ad, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return r, err
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_RULE_CHAIN:
			r.Chain = ad.String()
		case unix.NFTA_RULE_HANDLE:
			r.Handle = ad.Uint64()
		case unix.NFTA_RULE_USERDATA:
			if text := userComment(ad.Bytes()); text != "" {
				r.Comment = text
			}
		case unix.NFTA_RULE_EXPRESSIONS:
			ad.Nested(r.parseExprs)
		}
	}
	return r, ad.Err()
}

func (r *ForeignRule) parseExprs(list *netlink.AttributeDecoder) error {
	var accepts bool
	var dnat string
	var loaded foreignExpr
	for list.Next() {
		list.Nested(func(one *netlink.AttributeDecoder) error {
			e := parseExpr(one)
			switch {
			case e.name == "match" && e.xtName == "comment":
				r.Comment = e.xtText
			case e.verdict() != GoesOn:
				r.Verdict, accepts = e.verdict(), e.accept
			case e.jump != "":
				r.Jumps = e.jump
			case !e.harmless():
				dnat += e.dnatPart()
				r.addCondition(loaded, e)
				loaded = e
			}
			return nil
		})
	}
	r.AcceptsDNAT = accepts && dnat == "ct bitwise cmp "
	return nil
}

// addCondition reads what a comparison compares with what was loaded before.
func (r *ForeignRule) addCondition(loaded, e foreignExpr) {
	switch {
	case e.name == "meta" && e.metaKnown(), e.opensOnly, e.loadsState:
	case e.name == "bitwise" && loaded.loadsState && e.takesNew:
	case e.name == "cmp" && loaded.name == "bitwise" && loaded.takesNew && e.not && len(bytes.Trim(e.data, "\x00")) == 0:
	case e.name == "cmp" && loaded.name == "meta" && loaded.onInterface() && e.compares:
		r.On = append(r.On, e.interfaceCondition(loaded.metaKey))
	case e.name == "cmp" && loaded.name == "meta" && loaded.metaKey == unix.NFT_META_L4PROTO && e.compares && !e.not:
		r.Conditional = r.Conditional || !bytes.Equal(e.data, []byte{unix.IPPROTO_TCP}) && !bytes.Equal(e.data, []byte{unix.IPPROTO_UDP})
	case e.name == "cmp" && loaded.name == "meta" && loaded.metaKey == unix.NFT_META_NFPROTO:
	default:
		r.Conditional = true
	}
}

// foreignExpr is what is read of an expression.
type foreignExpr struct {
	name string
	// xtName and xtText are the name and the text of an extension of iptables.
	xtName, xtText string
	// drop and accept are true for those verdicts, jump is the chain of another.
	drop, accept, back bool
	jump               string
	// metaKey is what a meta expression loads.
	metaKey uint32
	// compares is true for a comparison for equality, or with not for the
	// opposite, and data is what it compares with.
	compares, not bool
	data          []byte
	// loadsState is true when the expression loads the state of the connection,
	// takesNew when a mask has the bit of new ones.
	loadsState, takesNew bool
	// opensOnly is true for an extension that matches new connections, and
	// perhaps others.
	opensOnly bool
	// status is true when the expression loads the status of the connection,
	// takes IPS_DST_NAT out of it, or wants that not to be zero.
	status bool
}

// dnatPart names the parts of "ct status dnat", in an order that they have
// nowhere else, and everything else as something else.
func (e foreignExpr) dnatPart() string {
	if e.status {
		return e.name + " "
	}
	return "other "
}

// verdict is what the expression does with the packet.
func (e foreignExpr) verdict() Verdict {
	switch {
	case e.drop, e.name == "reject", e.name == "target" && (e.xtName == "REJECT" || e.xtName == "DROP"):
		return Blocks
	case e.accept:
		return Accepts
	case e.back:
		return Returns
	default:
		return GoesOn
	}
}

func (e foreignExpr) onInterface() bool {
	switch e.metaKey {
	case unix.NFT_META_IIFNAME, unix.NFT_META_OIFNAME, unix.NFT_META_IIF, unix.NFT_META_OIF:
		return true
	default:
		return false
	}
}

// metaKnown tells whether a comparison with what is loaded can be read.
func (e foreignExpr) metaKnown() bool {
	return e.onInterface() || e.metaKey == unix.NFT_META_L4PROTO || e.metaKey == unix.NFT_META_NFPROTO
}

// interfaceCondition reads the other side of a comparison. The iptables programs
// and nft leave the zero at the end of a name away when more may follow.
func (e foreignExpr) interfaceCondition(key uint32) OnInterface {
	on := OnInterface{Out: key == unix.NFT_META_OIFNAME || key == unix.NFT_META_OIF, Not: e.not}
	if key == unix.NFT_META_IIF || key == unix.NFT_META_OIF {
		if len(e.data) == 4 {
			on.Index = binary.NativeEndian.Uint32(e.data)
		}
		return on
	}
	name, _, ended := bytes.Cut(e.data, []byte{0})
	on.Name, on.Prefix = string(name), !ended
	return on
}

// harmless tells whether the rule goes on after the expression for all packets.
func (e foreignExpr) harmless() bool { return e.name == "counter" || e.name == "log" }

func parseExpr(ad *netlink.AttributeDecoder) foreignExpr {
	var e foreignExpr
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_EXPR_NAME:
			e.name = ad.String()
		case unix.NFTA_EXPR_DATA:
			switch e.name {
			case "match", "target":
				ad.Nested(e.parseExtension)
			case "immediate":
				ad.Nested(e.parseVerdict)
			case "ct":
				ad.Nested(e.parseConntrack)
			case "cmp":
				ad.Nested(e.parseCompare)
			case "meta":
				ad.Nested(e.parseMeta)
			case "bitwise":
				ad.Nested(e.parseMask)
			}
		}
	}
	return e
}

// parseExtension reads NFTA_MATCH_NAME and NFTA_MATCH_INFO, which have the
// numbers of NFTA_TARGET_NAME and NFTA_TARGET_INFO.
func (e *foreignExpr) parseExtension(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_MATCH_NAME:
			e.xtName = ad.String()
		case unix.NFTA_MATCH_INFO:
			text, _, _ := bytes.Cut(ad.Bytes(), []byte{0})
			e.xtText = string(text)
			e.opensOnly = opensOnly(e.xtName, ad.Bytes())
		}
	}
	return nil
}

// opensOnly tells whether an extension is about the state of the connection
// alone, and takes new ones: struct xt_state_info, and xt_conntrack_mtinfo3 from
// its match_flags on, where a flag says that it was written as a state.
func opensOnly(name string, info []byte) bool {
	const stateNew, matchState, matchAlias, flagsAt = 1 << 3, 1, 1 << 13, 146
	switch {
	case name == "state" && len(info) >= 4:
		return binary.NativeEndian.Uint32(info)&stateNew != 0
	case name == "conntrack" && len(info) >= flagsAt+6:
		flags, inverted, states := binary.NativeEndian.Uint16(info[flagsAt:]), binary.NativeEndian.Uint16(info[flagsAt+2:]), binary.NativeEndian.Uint16(info[flagsAt+4:])
		return flags&^matchAlias == matchState && inverted == 0 && states&stateNew != 0
	default:
		return false
	}
}

// parseMeta reads NFTA_META_KEY.
func (e *foreignExpr) parseMeta(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() == unix.NFTA_META_KEY {
			e.metaKey = ad.Uint32()
		}
	}
	return nil
}

// parseVerdict reads NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE.
func (e *foreignExpr) parseVerdict(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() != unix.NFTA_IMMEDIATE_DATA {
			continue
		}
		ad.Nested(func(data *netlink.AttributeDecoder) error {
			for data.Next() {
				if data.Type() == unix.NFTA_DATA_VERDICT {
					data.Nested(e.parseCode)
				}
			}
			return nil
		})
	}
	return nil
}

func (e *foreignExpr) parseCode(ad *netlink.AttributeDecoder) error {
	const nfDrop, nfAccept, nfReturn = 0, 1, 1<<32 + unix.NFT_RETURN
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_VERDICT_CODE:
			code := ad.Uint32()
			e.drop, e.accept, e.back = code == nfDrop, code == nfAccept, code == nfReturn
		case unix.NFTA_VERDICT_CHAIN:
			e.jump = ad.String()
		}
	}
	return nil
}

// parseConntrack reads NFTA_CT_KEY.
func (e *foreignExpr) parseConntrack(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() == unix.NFTA_CT_KEY {
			key := ad.Uint32()
			e.status, e.loadsState = key == unix.NFT_CT_STATUS, key == unix.NFT_CT_STATE
		}
	}
	return nil
}

// parseCompare reads NFTA_CMP_OP and NFTA_CMP_DATA.
func (e *foreignExpr) parseCompare(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_CMP_OP:
			op := ad.Uint32()
			e.status, e.not = op == unix.NFT_CMP_NEQ, op == unix.NFT_CMP_NEQ
			e.compares = op == unix.NFT_CMP_EQ || op == unix.NFT_CMP_NEQ
		case unix.NFTA_CMP_DATA:
			ad.Nested(func(data *netlink.AttributeDecoder) error {
				for data.Next() {
					if data.Type() == unix.NFTA_DATA_VALUE {
						e.data = data.Bytes()
					}
				}
				return nil
			})
		}
	}
	return nil
}

// parseMask reads NFTA_BITWISE_MASK. The bits are in the machine's order.
func (e *foreignExpr) parseMask(ad *netlink.AttributeDecoder) error {
	const dstNAT, stateNew = 1 << 5, 1 << 3 // IPS_DST_NAT, NF_CT_STATE_BIT(IP_CT_NEW)
	for ad.Next() {
		if ad.Type() != unix.NFTA_BITWISE_MASK {
			continue
		}
		ad.Nested(func(data *netlink.AttributeDecoder) error {
			for data.Next() {
				if mask := data.Bytes(); data.Type() == unix.NFTA_DATA_VALUE && len(mask) == 4 {
					bits := binary.NativeEndian.Uint32(mask)
					e.status, e.takesNew = bits == dstNAT, bits&stateNew != 0
				}
			}
			return nil
		})
	}
	return nil
}

// userComment finds the comment in the user data of a rule: a list of type,
// length and value; type 0 is the comment, ended by a zero.
func userComment(data []byte) string {
	for len(data) >= 2 {
		kind, length := data[0], int(data[1])
		if len(data) < 2+length {
			return ""
		}
		if kind == 0 && length > 0 {
			return string(data[2 : 2+length-1])
		}
		data = data[2+length:]
	}
	return ""
}
