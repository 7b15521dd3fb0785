package ruleset

import (
	"encoding/binary"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Rule is one rule of a chain, in both of its forms.
type Rule struct {
	// Text is the rule in nft's syntax, without its comment.
	Text    string
	Exprs   []expr.Any
	Comment string
}

// part is a piece of a rule: its words and its expressions.
type part struct {
	text  string
	exprs []expr.Any
	// needs is what must be known of the packet before the expressions run. In
	// a table of family inet a header can be read only after its protocol has
	// been checked; nft leaves that check out of the text.
	needs protocols
}

// protocols is what is known of a packet; 0 is not known.
type protocols struct {
	network, transport byte
	// frame is the type of an Ethernet frame, known at the ports of a bridge.
	frame uint16
}

// rule joins parts, and adds the checks of protocols that they need.
func rule(comment string, parts ...part) Rule {
	var (
		known protocols
		r     = Rule{Comment: comment}
		words []string
	)
	for _, p := range parts {
		r.Exprs = append(r.Exprs, known.learn(p.needs)...)
		r.Exprs = append(r.Exprs, p.exprs...)
		if p.text != "" {
			words = append(words, p.text)
		}
	}
	r.Text = strings.Join(words, " ")
	return r
}

// learn returns the checks that are missing for need, and remembers them.
func (k *protocols) learn(need protocols) []expr.Any {
	var checks []expr.Any
	if need.network != 0 && need.network != k.network {
		k.network = need.network
		checks = append(checks, meta(expr.MetaKeyNFPROTO, firstRegister), compare(expr.CmpOpEq, []byte{need.network}))
	}
	if need.frame != 0 && need.frame != k.frame {
		k.frame = need.frame
		// Not what the kernel makes of the frame: a VLAN tag hides nothing here.
		kind := &expr.Payload{DestRegister: firstRegister, Base: expr.PayloadBaseLLHeader, Offset: 12, Len: 2}
		checks = append(checks, kind, compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, need.frame)))
	}
	if need.transport != 0 && need.transport != k.transport {
		k.transport = need.transport
		checks = append(checks, meta(expr.MetaKeyL4PROTO, firstRegister), compare(expr.CmpOpEq, []byte{need.transport}))
	}
	return checks
}

// firstRegister is where a value, or a concatenation, begins.
const firstRegister = unix.NFT_REG_1

// register numbers the word of the register file: the first word of each 16
// byte register has that register's old number.
func register(word uint32) uint32 {
	if word%4 == 0 {
		return unix.NFT_REG_1 + word/4
	}
	return unix.NFT_REG32_00 + word
}

func meta(key expr.MetaKey, reg uint32) expr.Any {
	return &expr.Meta{Key: key, Register: reg}
}

func compare(op expr.CmpOp, data []byte) expr.Any {
	return &expr.Cmp{Op: op, Register: firstRegister, Data: data}
}

// onlyIPv4 and onlyIPv6 say in words what a translation needs: it is bound to
// a family.
func onlyIPv4() part {
	return part{text: "meta nfproto ipv4", needs: protocols{network: unix.NFPROTO_IPV4}}
}

func onlyIPv6() part {
	return part{text: "meta nfproto ipv6", needs: protocols{network: unix.NFPROTO_IPV6}}
}

func onlyUDP() part {
	return part{text: "meta l4proto udp", needs: protocols{transport: unix.IPPROTO_UDP}}
}

func onlyTCP() part {
	return part{text: "meta l4proto tcp", needs: protocols{transport: unix.IPPROTO_TCP}}
}

func accept() part { return verdict("accept", expr.VerdictAccept, "") }
func drop() part   { return verdict("drop", expr.VerdictDrop, "") }

func jump(chain string) part { return verdict("jump "+chain, expr.VerdictJump, chain) }

func verdict(text string, kind expr.VerdictKind, chain string) part {
	return part{text: text, exprs: []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}}
}

func masquerade() part { return part{text: "masquerade", exprs: []expr.Any{&expr.Masq{}}} }

// count adds the packet to a named counter.
func count(counter string) part {
	return part{
		text:  `counter name "` + counter + `"`,
		exprs: []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: counter}},
	}
}

// dnat leads the packet to where a map sends it. When the map has no such key
// the rule does not match.
func dnat(to *Set, family part, fields ...field) part {
	key := load(fields...)
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(family.needs.network), RegAddrMin: firstRegister}
	word := "ip"
	if nat.Family == unix.NFPROTO_IPV6 {
		word = "ip6"
	}
	if len(to.Data.parts) > 1 {
		nat.RegProtoMin = register(to.Data.parts[0].words())
	}
	lookup := &expr.Lookup{SourceRegister: firstRegister, IsDestRegSet: true, DestRegister: firstRegister, SetName: to.Name}
	return part{
		text:  family.text + " dnat " + word + " to " + key.text + " map @" + to.Name,
		exprs: append(key.exprs, lookup, nat),
		needs: family.needs.and(key.needs),
	}
}

func (k protocols) and(other protocols) protocols {
	if other.network != 0 {
		k.network = other.network
	}
	if other.transport != 0 {
		k.transport = other.transport
	}
	if other.frame != 0 {
		k.frame = other.frame
	}
	return k
}

// in matches packets whose fields are a key of the set, notIn the others.
func in(set *Set, fields ...field) part    { return lookup(set, "@", false, fields) }
func notIn(set *Set, fields ...field) part { return lookup(set, "!= @", true, fields) }

func lookup(set *Set, operator string, invert bool, fields []field) part {
	key := load(fields...)
	key.text += " " + operator + set.Name
	key.exprs = append(key.exprs, &expr.Lookup{SourceRegister: firstRegister, SetName: set.Name, Invert: invert})
	return key
}

// remember writes the fields into a dynamic set, or makes the element young
// again. When the set is full the rule ends there, so it must be the last part.
func remember(set *Set, fields ...field) part {
	key := load(fields...)
	key.text = "update @" + set.Name + " { " + key.text + " }"
	key.exprs = append(key.exprs, &expr.Dynset{SrcRegKey: firstRegister, SetName: set.Name, Operation: unix.NFT_DYNSET_OP_UPDATE})
	return key
}
