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
	// BlocksAll is true when the rule drops or rejects every packet.
	BlocksAll bool
	// JumpsAll is the chain where the rule sends every packet.
	JumpsAll string
	// AcceptsDNAT is true when the rule accepts whatever has had its destination
	// translated.
	AcceptsDNAT bool
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
	var blocks, conditional, accepts bool
	var dnat, jump string
	for list.Next() {
		list.Nested(func(one *netlink.AttributeDecoder) error {
			switch e := parseExpr(one); {
			case e.name == "match" && e.xtName == "comment":
				r.Comment = e.xtText
			case e.blocks():
				blocks = true
			case e.jump != "":
				jump = e.jump
			case e.accept:
				accepts = true
			case !e.harmless():
				conditional = true
				dnat += e.dnatPart()
			}
			return nil
		})
	}
	r.BlocksAll = blocks && !conditional
	if !conditional {
		r.JumpsAll = jump
	}
	r.AcceptsDNAT = accepts && dnat == "ct bitwise cmp "
	return nil
}

// foreignExpr is what is read of an expression.
type foreignExpr struct {
	name string
	// xtName and xtText are the name and the text of an extension of iptables.
	xtName, xtText string
	// drop and accept are true for those verdicts, jump is the chain of another.
	drop, accept bool
	jump         string
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

// blocks tells whether the expression ends the packet.
func (e foreignExpr) blocks() bool {
	return e.drop || e.name == "reject" || e.name == "target" && (e.xtName == "REJECT" || e.xtName == "DROP")
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
	const nfDrop, nfAccept = 0, 1
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_VERDICT_CODE:
			code := ad.Uint32()
			e.drop, e.accept = code == nfDrop, code == nfAccept
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
			e.status = ad.Uint32() == unix.NFT_CT_STATUS
		}
	}
	return nil
}

// parseCompare reads NFTA_CMP_OP.
func (e *foreignExpr) parseCompare(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() == unix.NFTA_CMP_OP {
			e.status = ad.Uint32() == unix.NFT_CMP_NEQ
		}
	}
	return nil
}

// parseMask reads NFTA_BITWISE_MASK. The bits are in the machine's order.
func (e *foreignExpr) parseMask(ad *netlink.AttributeDecoder) error {
	const dstNAT = 1 << 5 // IPS_DST_NAT
	for ad.Next() {
		if ad.Type() != unix.NFTA_BITWISE_MASK {
			continue
		}
		ad.Nested(func(data *netlink.AttributeDecoder) error {
			for data.Next() {
				if mask := data.Bytes(); data.Type() == unix.NFTA_DATA_VALUE && len(mask) == 4 {
					e.status = binary.NativeEndian.Uint32(mask) == dstNAT
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
