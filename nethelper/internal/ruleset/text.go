package ruleset

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
)

// Text renders the table, and the one at the ports, in the syntax of nft, so that
// nft -f could load it.
func (t *Table) Text() string {
	var b strings.Builder
	for i, table := range t.All() {
		if i > 0 {
			b.WriteByte('\n')
		}
		table.write(&b)
	}
	return b.String()
}

func (t *Table) write(b *strings.Builder) {
	fmt.Fprintf(b, "table %s %s {\n", t.family(), t.Name)
	for _, c := range t.Counters {
		fmt.Fprintf(b, "\tcounter %s {\n\t}\n\n", c)
	}
	for _, s := range t.Sets {
		s.write(b)
	}
	for i, c := range t.Chains {
		if i > 0 {
			b.WriteByte('\n')
		}
		c.write(b)
	}
	b.WriteString("}\n")
}

func (t *Table) family() string {
	if t.Family == nftables.TableFamilyBridge {
		return "bridge"
	}
	return "inet"
}

func (s *Set) write(b *strings.Builder) {
	if s.IsMap() {
		fmt.Fprintf(b, "\tmap %s {\n\t\ttype %s : %s\n", s.Name, s.Key, s.Data)
	} else {
		fmt.Fprintf(b, "\tset %s {\n\t\ttype %s\n", s.Name, s.Key)
	}
	if s.Size > 0 {
		fmt.Fprintf(b, "\t\tsize %d\n", s.Size)
	}
	if flags := s.flags(); flags != "" {
		fmt.Fprintf(b, "\t\tflags %s\n", flags)
	}
	if s.Timeout > 0 {
		fmt.Fprintf(b, "\t\ttimeout %ds\n", int(s.Timeout/time.Second))
	}
	if s.Counter() {
		b.WriteString("\t\tcounter\n")
	}
	fmt.Fprintf(b, "\t\tcomment %s\n", strconv.Quote(s.Comment))
	if len(s.Elements) > 0 {
		fmt.Fprintf(b, "\t\telements = {\n\t\t\t%s\n\t\t}\n", strings.Join(s.elements(), ",\n\t\t\t"))
	}
	b.WriteString("\t}\n\n")
}

func (s *Set) flags() string {
	switch {
	case s.Keep == KeepAll && s.Timeout == 0:
		return "dynamic"
	case s.Keep == KeepAll:
		return "dynamic,timeout"
	case s.Timeout > 0:
		return "timeout"
	case s.Interval:
		return "interval"
	default:
		return ""
	}
}

func (s *Set) elements() []string {
	texts := make([]string, len(s.Elements))
	for i, e := range s.Elements {
		texts[i] = e.Key.Text
		if e.Comment != "" {
			texts[i] += " comment " + strconv.Quote(e.Comment)
		}
		if s.IsMap() {
			texts[i] += " : " + e.Data.Text
		}
	}
	return texts
}

func (c *Chain) write(b *strings.Builder) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Base != nil {
		fmt.Fprintf(b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.Base.Type, hookName(c.Base.Hook), c.Base.Priority)
	}
	for _, r := range c.Rules {
		fmt.Fprintf(b, "\t\t%s comment %s\n", r.Text, strconv.Quote(r.Comment))
	}
	b.WriteString("\t}\n")
}

func hookName(hook *nftables.ChainHook) string {
	switch *hook {
	case *nftables.ChainHookPrerouting:
		return "prerouting"
	case *nftables.ChainHookInput:
		return "input"
	case *nftables.ChainHookForward:
		return "forward"
	default:
		return "postrouting"
	}
}
