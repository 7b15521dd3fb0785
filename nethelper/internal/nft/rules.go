package nft

import (
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
	Handle uint64
	// Exprs are the names of the expressions, such as "match" or "immediate",
	// with their attributes as they are in the kernel.
	Exprs []ForeignExpr
	// Comment is the rule's own, as nft writes it. The iptables programs have
	// theirs in a match.
	Comment []byte
}

// ForeignExpr is one expression of a rule.
type ForeignExpr struct {
	Name string
	Data []byte
}

// ListRules returns the rules of a chain, in their order. A chain that does not
// exist has none.
func ListRules(cfg Config, chain *nftables.Chain) ([]ForeignRule, error) {
	return listRules(cfg, chain.Table.Family, chain.Table.Name, chain.Name)
}

// listRules lists the rules of one chain, or of all chains of the table.
func listRules(cfg Config, family nftables.TableFamily, table, chain string) ([]ForeignRule, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: cfg.NetNS})
	if err != nil {
		return nil, fmt.Errorf("open netfilter connection: %w", err)
	}
	defer func() { _ = conn.Close() }()
	filter := []netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table), 0)}}
	if chain != "" {
		filter = append(filter, netlink.Attribute{Type: unix.NFTA_RULE_CHAIN, Data: append([]byte(chain), 0)})
	}
	attrs, err := netlink.MarshalAttributes(filter)
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
		return nil, fmt.Errorf("list rules of %s %s: %w", table, chain, err)
	}
	rules := make([]ForeignRule, 0, len(answer))
	for _, msg := range answer {
		rule, err := parseRule(msg.Data)
		if err != nil {
			return nil, fmt.Errorf("read rule of %s %s: %w", table, chain, err)
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
		case unix.NFTA_RULE_HANDLE:
			r.Handle = ad.Uint64()
		case unix.NFTA_RULE_USERDATA:
			r.Comment = comment(ad.Bytes())
		case unix.NFTA_RULE_EXPRESSIONS:
			ad.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(one *netlink.AttributeDecoder) error {
						r.Exprs = append(r.Exprs, parseExpr(one))
						return nil
					})
				}
				return nil
			})
		}
	}
	return r, ad.Err()
}

func parseExpr(ad *netlink.AttributeDecoder) ForeignExpr {
	var e ForeignExpr
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_EXPR_NAME:
			e.Name = ad.String()
		case unix.NFTA_EXPR_DATA:
			e.Data = ad.Bytes()
		}
	}
	return e
}

// comment finds the comment in the user data of a rule: a list of type, length
// and value; type 0 is the comment, ended by a zero.
func comment(data []byte) []byte {
	for len(data) >= 2 {
		kind, length := data[0], int(data[1])
		if len(data) < 2+length {
			return nil
		}
		if kind == 0 && length > 0 {
			return data[2 : 2+length-1]
		}
		data = data[2+length:]
	}
	return nil
}
