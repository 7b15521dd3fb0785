package config

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// configparser reads INI texts with Python's own parser.
func configparser(t *testing.T, texts []string) []map[string]map[string]*string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("python3 is missing")
		}
		t.Skip("python3 is missing")
	}
	const program = `
import configparser, io, json, sys
out = []
for text in json.load(sys.stdin):
    c = configparser.RawConfigParser(allow_no_value=True)
    try:
        c.read_file(io.StringIO(text, newline=None))
        out.append({s: dict(c.items(s)) for s in c.sections()})
    except Exception:
        out.append(None)
json.dump(out, sys.stdout)`
	in, err := json.Marshal(texts)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", program)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []map[string]map[string]*string
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// iniTexts are what servers write, what people make of it, and what neither does.
var iniTexts = []string{
	"",
	"[a]\n",
	"[a]\nbare\nempty =\nempty2 = \nset = x\n",
	"[a]\nKey = Value\nÜMLAUT = äöü ß €\n",
	"[a]\nk = a=b:c # d ; e %(x)s 50%%off %\n",
	"[a]\nk=v\nj  =  v  \ni : v\nh: a=b\ng = :\n",
	"[a]\nk = one\n\ttwo\n  three\nj = x\n",
	"[a]\nk = one\n\n\ttwo\n\n\nj = x\n",
	"[a]\nk = one\n\t# gone\n\ttwo\n",
	"[a]\nk = \n\ttwo\n",
	"[a]\n# comment\n; comment\nk = v\n  # indented comment\nl = w\n",
	"[a]\nk = v\r\nl = w\rm = x\r\n",
	"[a] trailing\nk = v\n[b]c]\n[]\n[\n",
	"  [a]\n  k = v\n  l = w\n   m = x\n",
	"[a]\n\tk = v\n\t\tmore\nl = w\n",
	"[a]\nk = v\n[b]\n\tk = w\n",
	"[a]\nk = \u00a0x\u00a0\u2003\n",
	"[a]\nk = \x1cx\x1d\n",
	"[a b]\nkey with spaces = v\n",
	"[a]\nproxy = p:@ w=d;#x\n",
	"[a]\nk = v\n\t[b]\n",
	"[a]\nk\n[b]\nk = 1\n",
	"[a]\nk\n\n\nl = 1\n",
	"k = v\n",
	"[a]\n= v\n",
	"[a]\nk = 1\nK = 2\n",
	"[a]\n[a]\n",
	"[a]\nbare\n\tcontinued\n",
}

func values(d *document) map[string]map[string]*string {
	all := map[string]map[string]*string{}
	for _, s := range d.sections {
		all[s.name] = map[string]*string{}
		for _, i := range s.items {
			all[s.name][i.key] = i.value
		}
	}
	return all
}

func TestReadsAndWritesAsConfigparser(t *testing.T) {
	texts := append([]string(nil), iniTexts...)
	want := configparser(t, texts)
	var written []string
	for i, text := range texts {
		doc, err := parseINI(text)
		if err != nil {
			if want[i] != nil {
				t.Errorf("%q: %v, but configparser reads it", text, err)
			}
			written = append(written, "")
			want[i] = map[string]map[string]*string{}
			continue
		}
		if diff := cmp.Diff(want[i], values(doc)); diff != "" {
			t.Errorf("%q (-configparser +got):\n%s", text, diff)
		}
		written = append(written, doc.String())
	}
	for i, got := range configparser(t, written) {
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Errorf("%q, written as %q, configparser reads back (-want +got):\n%s", texts[i], written[i], diff)
		}
	}
}

func FuzzParseINI(f *testing.F) {
	for _, text := range iniTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		doc, err := parseINI(text)
		if err != nil {
			return
		}
		back, err := parseINI(doc.String())
		if err != nil {
			t.Fatalf("%q was written as %q: %v", text, doc.String(), err)
		}
		if diff := cmp.Diff(values(doc), values(back)); diff != "" {
			t.Fatalf("%q (-read +read back):\n%s", text, diff)
		}
	})
}
