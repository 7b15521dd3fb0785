package ruleset

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/helperapi"
)

// rulesDocument is what a person reads about the rules.
const rulesDocument = "../../RULES.md"

// TestRulesDocument writes RULES.md from the rules. A rule without a sentence
// is an error, and so is a sentence without a rule.
func TestRulesDocument(t *testing.T) {
	d := document{t: t, used: map[string]bool{}, shown: map[string]bool{}}
	d.write(documentHead)
	shipped := d.table(func(*Config) {})
	d.write("\n## Chains\n\nAs written with the settings of the compose file (`HOST_PORTS=protect`, `EGRESS=deny`), on a host that forwarded nothing\nbefore, whose kernel can switch IPv6 forwarding on only for all interfaces.\n")
	for _, c := range shipped.Chains {
		d.chain(c)
	}
	d.write("\n## Chains at the ports of the bridge\n\nIn the table of family bridge. On a kernel without such tables it is missing, and the state says so.\n")
	for _, c := range shipped.Ports.Chains {
		d.chain(c)
	}
	d.write("\n## Rules of other settings\n\nIn the same chains, in place of or next to those above.\n")
	d.others("`HOST_PORTS=assigned`", d.table(func(c *Config) { c.HostPorts = helperapi.HostPortsAssigned }))
	d.others("`EGRESS=internet`", d.table(func(c *Config) { c.Egress = helperapi.EgressInternet }))
	d.others("`EGRESS=all`", d.table(func(c *Config) { c.Egress = helperapi.EgressAll }))
	d.sets("Sets and maps", shipped, d.table(func(c *Config) { c.Egress = helperapi.EgressInternet }))
	d.sets("Sets at the ports of the bridge", shipped.Ports)
	d.write(documentTail)
	for key := range sentences {
		if !d.used[key] {
			t.Errorf("sentence for %q, which is no rule", key)
		}
	}
	d.compare()
}

type document struct {
	t    *testing.T
	text strings.Builder
	// used are the sentences, shown the rules, that are in the text.
	used, shown map[string]bool
}

func (d *document) write(text string) { d.text.WriteString(text) }

func (d *document) table(change func(*Config)) *Table {
	d.t.Helper()
	cfg := example()
	change(&cfg)
	table, err := New(cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	return table
}

func (d *document) chain(c Chain) {
	d.write("\n### " + c.Name + "\n\n")
	if c.Base != nil {
		d.write(fmt.Sprintf("Type %s, hook %s, priority %d. ", c.Base.Type, hookName(c.Base.Hook), c.Base.Priority))
	}
	d.write(d.sentence(c.Name) + "\n\n| rule | why |\n| --- | --- |\n")
	for _, r := range c.Rules {
		d.rule(c, r)
	}
}

func (d *document) rule(c Chain, r Rule) {
	d.shown[c.Name+r.Text] = true
	d.write(fmt.Sprintf("| `%s` | %s |\n", strings.ReplaceAll(r.Text, "|", `\|`), d.sentence(c.Name+": "+r.Comment)))
}

// sentence returns what is said about a chain, or about a rule of it.
func (d *document) sentence(key string) string {
	s, ok := sentences[key]
	if !ok {
		d.t.Errorf("no sentence for %q", key)
	}
	d.used[key] = true
	return s
}

func (d *document) others(setting string, table *Table) {
	d.write("\n### " + setting + "\n\n")
	if table.cfg.HostPorts == helperapi.HostPortsAssigned {
		d.write(fmt.Sprintf("The chain `assigned` has priority %d, so that it comes before Docker's.\n\n", priorityBefore))
	}
	d.write("| chain | rule | why |\n| --- | --- | --- |\n")
	for _, c := range table.Chains {
		for _, r := range c.Rules {
			if !d.shown[c.Name+r.Text] {
				d.write("| `" + c.Name + "` ")
				d.rule(c, r)
			}
		}
	}
}

func (d *document) sets(title string, tables ...*Table) {
	d.write("\n## " + title + "\n\n| name | type | meaning | lasts |\n| --- | --- | --- | --- |\n")
	for _, table := range tables {
		for _, s := range table.Sets {
			if d.shown[title+s.Name] {
				continue
			}
			d.shown[title+s.Name] = true
			kind, lasts := s.Key.String(), "until changed"
			if s.IsMap() {
				kind += " : " + s.Data.String()
			}
			if s.Timeout > 0 {
				lasts = s.Timeout.String()
			}
			if s.Size > 0 {
				lasts += fmt.Sprintf(", up to %d", s.Size)
			}
			d.write(fmt.Sprintf("| `%s` | `%s` | %s | %s |\n", s.Name, kind, s.Comment, lasts))
		}
	}
}

func (d *document) compare() {
	d.t.Helper()
	if *update {
		if err := os.WriteFile(rulesDocument, []byte(d.text.String()), 0o644); err != nil {
			d.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(rulesDocument)
	if err != nil {
		d.t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), d.text.String()); diff != "" {
		d.t.Errorf("RULES.md (-want +got), -update writes it:\n%s", diff)
	}
}
