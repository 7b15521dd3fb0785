package update

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// someRecord is one that has everything.
func someRecord() *Record {
	return &Record{
		Phase: Trial, Offer: Offer{Revision: "b", URI: "api/platforms/firmware/1/raw"}, Began: time.Unix(1700000000, 0).UTC(), Digest: oldID, Size: 5,
		Firmware: Firmware{Layers: []string{imageOld}, Unpacked: 7, Handover: true, Signed: true}, Beside: true,
		From: Sensor{Project: "hs", Revision: "a", Image: imageOld, Container: oldID}, To: Sensor{Project: "hs-2", Revision: "b", Image: imageNew},
		Deployment: Deployment{Dir: "/opt/hs", Files: []string{"/opt/hs/docker-compose.yml"}, Service: "sensor", Socket: "/run/docker.sock", Env: []string{"A=1"}, HostNetwork: true},
		Worked:     Worked{Services: []string{"1"}, Tested: []string{"1"}, Network: true, Events: true}, Limits: Limits{Prepare: time.Minute, Trial: time.Hour},
		Deadline: time.Unix(1700000060, 0).UTC(), Starts: 2, Reason: "because", Done: true,
	}
}

func TestJournalKeepsEverything(t *testing.T) {
	j := NewJournal(filepath.Join(t.TempDir(), "made", "by it"))
	if r, err := j.Read(); r != nil || err != nil {
		t.Fatalf("before: %v, %v", r, err)
	}
	if err := j.Write(someRecord()); err != nil {
		t.Fatal(err)
	}
	got, err := j.Read()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(someRecord(), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, name := range []string{archiveFile, "old.json", "env.good", "compose0.good", "env.good.absent"} {
		if err := os.WriteFile(filepath.Join(j.Dir(), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Remember(Memory{Hold: true}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := j.Forget(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[string]string{memoryFile: ""}, blank(textsIn(t, j.Dir()))); diff != "" {
		t.Errorf("afterwards (-want +got):\n%s", diff)
	}
}

func blank(texts map[string]string) map[string]string {
	for name := range texts {
		texts[name] = ""
	}
	return texts
}

// TestJournalThatIsWrong has journals that were torn, forged or are of a future
// revision: the conductor acts as root by them.
func TestJournalThatIsWrong(t *testing.T) {
	right := string(encoded(t, someRecord()))
	swap := func(from, to string) string {
		if !strings.Contains(right, from) {
			t.Fatalf("%q is not in %s", from, right)
		}
		return strings.Replace(right, from, to, 1)
	}
	for name, text := range map[string]string{
		"empty":                 "",
		"torn":                  right[:len(right)/2],
		"zeros":                 string(make([]byte, 4096)),
		"a list":                "[]",
		"too large":             `{"reason":"` + strings.Repeat("x", maxFile) + `"}`,
		"unknown phase":         swap(`"trial"`, `"finished"`),
		"no phase":              "{}",
		"digest":                swap(oldID, "../../x"),
		"project with a switch": swap(`"hs-2"`, `"--help"`),
		"project with a path":   swap(`"hs-2"`, `"../hs"`),
		"same projects":         swap(`"hs-2"`, `"hs"`),
		"image":                 swap(imageNew, "debian:latest"),
		"container":             swap(`"container":"`+oldID, `"container":"-f`),
		"revision":              swap(`"revision":"b"`, `"revision":"b c"`),
		"directory":             swap(`"/opt/hs"`, `"opt/hs"`),
		"compose file":          swap(`"/opt/hs/docker-compose.yml"`, `"docker-compose.yml"`),
		"no compose file":       swap(`["/opt/hs/docker-compose.yml"]`, `[]`),
		"no service":            swap(`"service":"sensor"`, `"service":""`),
		"service is a switch":   swap(`"service":"sensor"`, `"service":"--remove-orphans"`),
		"compose file outside":  swap(`"/opt/hs/docker-compose.yml"`, `"/etc/passwd"`),
		"climbing compose file": swap(`"/opt/hs/docker-compose.yml"`, `"/opt/hs/../../etc/passwd"`),
	} {
		t.Run(name, func(t *testing.T) {
			j := NewJournal(t.TempDir())
			if err := os.WriteFile(filepath.Join(j.Dir(), journalFile), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if r, err := j.Read(); err == nil {
				t.Errorf("read %+v", r)
			}
		})
	}
	j := NewJournal(t.TempDir())
	if err := os.WriteFile(filepath.Join(j.Dir(), journalFile), []byte(right), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Read(); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

func TestJournalIsNotWrittenWrong(t *testing.T) {
	j := NewJournal(t.TempDir())
	if err := j.Write(someRecord()); err != nil {
		t.Fatal(err)
	}
	r := someRecord()
	r.To.Image = "x"
	if err := j.Write(r); err == nil {
		t.Error("a wrong record is written")
	}
	if got, err := j.Read(); err != nil || cmp.Diff(someRecord(), got) != "" {
		t.Errorf("the one before is gone: %v", err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	j := NewJournal(t.TempDir())
	var m Memory
	for n := range maxRefused + 5 {
		m.Refused = append(m.Refused, Refusal{Revision: fmt.Sprint(n), Digest: fmt.Sprint(n)})
	}
	if err := j.Remember(m); err != nil {
		t.Fatal(err)
	}
	got, err := j.Memory()
	if err != nil || len(got.Refused) != maxRefused || got.Refused[0].Revision != "5" {
		t.Errorf("%d remembered, the first is %+v; %v", len(got.Refused), got.Refused[0], err)
	}
}

// TestReportsOfTheSidesAreApart: a report that was torn is an error, not a
// report of something else.
func TestReportsOfTheSidesAreApart(t *testing.T) {
	j := NewJournal(t.TempDir())
	want := Report{Serving: true, Proof: Proof{Poll: true, Services: []string{"1"}}, Problem: "p"}
	if err := j.Report(New, want); err != nil {
		t.Fatal(err)
	}
	got, err := j.Heard(New)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := j.Heard(Old); err != nil || got.Serving {
		t.Errorf("old: %+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(j.Dir(), "new.json"), []byte(`{"serving":tr`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := j.Heard(New); err == nil {
		t.Errorf("torn: %+v", got)
	}
}

func TestProofIsMeasuredAgainstWhatWorked(t *testing.T) {
	all := Proof{Poll: true, Event: true, Network: true, Services: []string{"1", "2"}, Tested: []string{"2"}}
	before := Worked{Services: []string{"1", "2"}, Tested: []string{"2"}, Network: true, Events: true}
	for name, c := range map[string]struct {
		change func(*Proof, *Worked)
		want   string
	}{
		"all":                           {func(*Proof, *Worked) {}, ""},
		"no poll":                       {func(p *Proof, _ *Worked) { p.Poll = false }, "poll"},
		"no network":                    {func(p *Proof, _ *Worked) { p.Network = false }, "network"},
		"no network before":             {func(p *Proof, w *Worked) { p.Network, w.Network = false, false }, ""},
		"a service less":                {func(p *Proof, _ *Worked) { p.Services = []string{"1"} }, "service 2"},
		"a service that did not answer": {func(p *Proof, w *Worked) { p.Services, w.Services = []string{"1"}, []string{"1"} }, ""},
		"a test that fails":             {func(p *Proof, _ *Worked) { p.Tested = []string{"1"} }, "service 2 does not pass"},
		"no test passed before":         {func(p *Proof, w *Worked) { p.Tested, w.Tested = nil, nil }, ""},
		"no event":                      {func(p *Proof, _ *Worked) { p.Event = false }, "event"},
		"events did not work before":    {func(p *Proof, w *Worked) { p.Event, w.Events = false, false }, ""},
		"nothing worked before":         {func(p *Proof, w *Worked) { *p, *w = Proof{}, Worked{} }, "poll"},
	} {
		p, w := all, before
		c.change(&p, &w)
		got := p.Missing(w)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: missing %q, want %q", name, got, c.want)
		}
	}
}

func FuzzJournal(f *testing.F) {
	f.Add(encoded(f, someRecord()))
	f.Add([]byte(`{"phase":"offered","offer":{"revision":"b"}}`))
	dir := memory(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		j := NewJournal(dir)
		if err := os.WriteFile(filepath.Join(dir, journalFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := j.Read()
		if err != nil || r == nil {
			return
		}
		// What is read can be written, and is the same then.
		if err := j.Write(r); err != nil {
			t.Fatal(err)
		}
		if again, err := j.Read(); err != nil || cmp.Diff(r, again) != "" {
			t.Errorf("%v\n%s", err, cmp.Diff(r, again))
		}
	})
}
