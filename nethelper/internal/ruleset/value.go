package ruleset

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Value is a constant in both of its forms.
type Value struct {
	// Text is the constant as nft writes it, Data as the kernel has it.
	Text string
	Data []byte
}

// join makes one value of several, each padded to a full word.
func join(values ...Value) Value {
	var (
		v     Value
		texts []string
	)
	for _, one := range values {
		texts = append(texts, one.Text)
		v.Data = append(v.Data, one.Data...)
		for len(v.Data)%4 != 0 {
			v.Data = append(v.Data, 0)
		}
	}
	v.Text = strings.Join(texts, " . ")
	return v
}

func address(a netip.Addr) Value { return Value{Text: a.String(), Data: a.AsSlice()} }

func number(port uint16) Value {
	return Value{Text: strconv.Itoa(int(port)), Data: binary.BigEndian.AppendUint16(nil, port)}
}

func transport(p helperapi.Protocol) Value {
	if p == helperapi.TCP {
		return Value{Text: "tcp", Data: []byte{unix.IPPROTO_TCP}}
	}
	return Value{Text: "udp", Data: []byte{unix.IPPROTO_UDP}}
}

func port(p helperapi.Port) Value { return join(transport(p.Protocol), number(p.Number)) }

func interfaceName(name string) Value {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return Value{Text: strconv.Quote(name), Data: data}
}

func icmpv6(name string, number byte) Value { return Value{Text: name, Data: []byte{number}} }

// Kind is the type of a key or of the data of a map.
type Kind struct {
	parts []basicKind
}

type basicKind struct {
	nftables.SetDatatype
}

func (k basicKind) words() uint32 { return (k.Bytes + 3) / 4 }

func kindOf(types ...nftables.SetDatatype) Kind {
	var k Kind
	for _, t := range types {
		k.parts = append(k.parts, basicKind{t})
	}
	return k
}

// String names the type as nft does.
func (k Kind) String() string {
	names := make([]string, len(k.parts))
	for i, p := range k.parts {
		names[i] = p.Name
	}
	return strings.Join(names, " . ")
}

// Datatype is the type as the kernel gets it.
func (k Kind) Datatype() nftables.SetDatatype {
	types := make([]nftables.SetDatatype, len(k.parts))
	for i, p := range k.parts {
		types[i] = p.SetDatatype
	}
	if len(types) == 1 {
		return types[0]
	}
	// Four parts at most, so the limit of five is never met.
	return nftables.MustConcatSetType(types...)
}

// Concatenation tells whether the type has several parts.
func (k Kind) Concatenation() bool { return len(k.parts) > 1 }
