package services

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/helperapi"
)

func tcp(number, to uint16) helperapi.Assignment {
	return helperapi.Assignment{Port: helperapi.Port{Protocol: helperapi.TCP, Number: number}, To: to}
}

func TestSettle(t *testing.T) {
	good := func(id string, ports ...helperapi.Assignment) Wanted {
		return Wanted{ID: id, Image: "a:1", Ports: ports}
	}
	many := make([]Wanted, helperapi.MaxServices+1)
	for n := range many {
		many[n] = good(fmt.Sprint(n + 1))
	}
	cases := map[string]struct {
		wanted []Wanted
		// of is the service that is looked at; errText and conflict are parts of
		// what is said about it, or "".
		of                string
		errText, conflict string
		ports             []helperapi.Assignment
		catchAll          bool
	}{
		"plain":                 {wanted: []Wanted{good("1", tcp(22, 2222))}, of: "1", ports: []helperapi.Assignment{tcp(22, 2222)}},
		"error of the server":   {wanted: []Wanted{{ID: "1", Image: "a:1", Error: "port assignment is not JSON", CatchAll: true}}, of: "1", errText: "not JSON"},
		"no image":              {wanted: []Wanted{{ID: "1"}}, of: "1", errText: "no image"},
		"id with a slash":       {wanted: []Wanted{good("../1")}, of: "../1", errText: "service id"},
		"id like a sandbox":     {wanted: []Wanted{good("1.net")}, of: "1.net", errText: "service id"},
		"raw with ports":        {wanted: []Wanted{{ID: "1", Image: "a:1", Raw: true, CatchAll: true, Ports: []helperapi.Assignment{tcp(1, 1)}}}, of: "1"},
		"too many":              {wanted: many, of: fmt.Sprint(helperapi.MaxServices + 1), errText: "more than 250 services"},
		"port of another":       {wanted: []Wanted{good("10", tcp(22, 1), tcp(23, 1)), good("9", tcp(22, 2))}, of: "10", conflict: "22/tcp is assigned to service 9", ports: []helperapi.Assignment{tcp(23, 1)}},
		"port twice":            {wanted: []Wanted{good("1", tcp(22, 1), tcp(22, 2))}, of: "1", conflict: "22/tcp", ports: []helperapi.Assignment{tcp(22, 1)}},
		"port 0":                {wanted: []Wanted{good("1", tcp(0, 1), tcp(1, 0))}, of: "1", conflict: "cannot be assigned"},
		"other protocol":        {wanted: []Wanted{good("1", helperapi.Assignment{Port: helperapi.Port{Protocol: "icmp", Number: 1}, To: 1})}, of: "1", conflict: "cannot be assigned"},
		"catch-all":             {wanted: []Wanted{{ID: "1", Image: "a:1", CatchAll: true}}, of: "1", catchAll: true},
		"second catch-all":      {wanted: []Wanted{{ID: "2", Image: "a:1", CatchAll: true}, {ID: "1", Image: "a:1", CatchAll: true}}, of: "2", conflict: "service 1 is the catch-all"},
		"broken one takes none": {wanted: []Wanted{{ID: "1", Error: "x", CatchAll: true, Ports: []helperapi.Assignment{tcp(22, 1)}}, good("2", tcp(22, 1))}, of: "2", ports: []helperapi.Assignment{tcp(22, 1)}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			plans := settle(c.wanted)
			n := slices.IndexFunc(plans, func(p plan) bool { return p.ID == c.of })
			if n < 0 {
				t.Fatalf("no plan for %s", c.of)
			}
			p := plans[n]
			if !strings.Contains(p.Error, c.errText) || (c.errText == "") != (p.Error == "") {
				t.Errorf("error %q, want %q", p.Error, c.errText)
			}
			if !strings.Contains(p.conflict, c.conflict) || (c.conflict == "") != (p.conflict == "") {
				t.Errorf("conflict %q, want %q", p.conflict, c.conflict)
			}
			if diff := cmp.Diff(c.ports, p.Ports); diff != "" || p.CatchAll != c.catchAll {
				t.Errorf("catch-all %v, ports %s", p.CatchAll, diff)
			}
		})
	}
}

func TestIDsAreSortedByValue(t *testing.T) {
	ids := []string{"10", "b", "9", "010", "a", "1", "11111111111111111111111", "2"}
	slices.SortFunc(ids, compareIDs)
	want := []string{"1", "2", "9", "010", "10", "11111111111111111111111", "a", "b"}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
}

func TestCleanTextIsOneShortLine(t *testing.T) {
	got := clean("a\x1b[31m\nb" + strings.Repeat("ü", 500))
	if strings.ContainsAny(got, "\x1b\n") || len([]rune(got)) > maxText || !strings.HasPrefix(got, "a [31m b") {
		t.Errorf("got %q", got)
	}
}

// FuzzSettle: whatever is stored or wanted, the helper gets nothing that it must
// refuse as a whole.
func FuzzSettle(f *testing.F) {
	f.Add([]byte(`[{"id":"1","image":"a:1","ports":[{"port":{"protocol":"tcp","number":22},"to":2222}]},{"id":"2","image":"b:1","catch_all":true}]`))
	f.Add([]byte(`[{"id":"1","image":"a:1","catch_all":true},{"id":"1","image":"a:1","catch_all":true}]`))
	f.Add([]byte(`[{"id":"01","image":"a:1"},{"id":"1","image":"a:1","raw":true,"label":"\u001b"}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var wanted []Wanted
		if json.Unmarshal(body, &wanted) != nil {
			return
		}
		n := helperapi.Network{
			Interface: helperapi.Interface{Name: "eth0", Mode: helperapi.ModeNone},
			Bridge:    helperapi.Bridge{V4: netip.MustParsePrefix("10.10.10.0/24"), CollectorPort: 5556},
			Egress:    helperapi.EgressDeny,
		}
		for i, p := range settle(wanted) {
			if p.Error != "" {
				continue
			}
			n.Services = append(n.Services, helperapi.Service{
				ID: p.ID, Ports: p.Ports, CatchAll: p.CatchAll,
				Sandbox: helperapi.Sandbox{ContainerID: fmt.Sprintf("%064x", i), PID: i + 2},
			})
		}
		if err := n.Validate(); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
	})
}

func TestStoreKeepsTheLastList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.json")
	if _, known, err := loadWanted(path); known || err != nil {
		t.Errorf("without a file: %v, %v", known, err)
	}
	want := []Wanted{{ID: "1", Label: "ä", Image: "a:1", Ports: []helperapi.Assignment{tcp(22, 2222)}}, {ID: "2", Image: "b:1", Raw: true}}
	for _, list := range [][]Wanted{{{ID: "9"}}, want} {
		if err := saveWanted(path, list); err != nil {
			t.Fatal(err)
		}
	}
	got, known, err := loadWanted(path)
	if err != nil || !known {
		t.Fatal(known, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("beside the file there is more: %v, %v", entries, err)
	}
	if err := os.WriteFile(path, []byte(`[{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, known, err := loadWanted(path); known || err == nil {
		t.Errorf("half a file: %v, %v", known, err)
	}
}

func TestEmptyListIsKnownAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.json")
	if err := saveWanted(path, nil); err != nil {
		t.Fatal(err)
	}
	if got, known, err := loadWanted(path); !known || err != nil || len(got) != 0 {
		t.Errorf("got %v, %v, %v", got, known, err)
	}
}
