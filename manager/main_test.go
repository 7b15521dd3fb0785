package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// run runs the command line and returns what it printed.
func run(t testing.TB, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	app := newCLI()
	app.Writer = &out
	err := app.RunContext(t.Context(), translate(args))
	return out.String(), err
}

// TestConfigShow compares what is printed of each archive with the INI text
// beside it, read in the plainest way: a bare key is unset.
func TestConfigShow(t *testing.T) {
	texts, err := filepath.Glob("internal/config/testdata/*.cfg")
	if err != nil || len(texts) < 10 {
		t.Fatalf("%d archives, error %v", len(texts), err)
	}
	for _, file := range texts {
		name := strings.TrimSuffix(filepath.Base(file), ".cfg")
		t.Run(name, func(t *testing.T) {
			out, err := run(t, "manager", "config", "show", "--json", filepath.Join("internal/config/testdata", name+".tar.gz"))
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]map[string]*string
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatalf("not JSON: %v\n%s", err, out)
			}
			if diff := cmp.Diff(plainINI(t, file), got); diff != "" {
				t.Errorf("(-INI text +printed):\n%s", diff)
			}
		})
	}
}

func plainINI(t *testing.T, file string) map[string]map[string]*string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sections, section := map[string]map[string]*string{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		key, value, set := strings.Cut(line, "=")
		switch {
		case line == "":
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
			sections[section] = map[string]*string{}
		case set:
			value = strings.TrimSpace(value)
			sections[section][strings.TrimSpace(key)] = &value
		default:
			sections[section][line] = nil
		}
	}
	return sections
}

func TestConfigShowRefuses(t *testing.T) {
	noArchive := filepath.Join(t.TempDir(), "s1.tar.gz")
	if err := os.WriteFile(noArchive, []byte("no archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{"nothing": nil, "no archive": {noArchive}, "missing": {"/nonexistent.tar.gz"}} {
		t.Run(name, func(t *testing.T) {
			if _, err := run(t, append([]string{"manager", "config", "show"}, args...)...); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestOldCommandLine(t *testing.T) {
	tests := []struct{ args, want string }{
		{"/usr/bin/manager-cli -s", "/usr/bin/manager-cli status"},
		{"manager-cli -l debug", "manager-cli log-level debug"},
		{"manager-cli status --json", "manager-cli status --json"},
		{"manager -s", "manager -s"},
	}
	for _, test := range tests {
		if got := strings.Join(translate(strings.Fields(test.args)), " "); got != test.want {
			t.Errorf("%s becomes %s, want %s", test.args, got, test.want)
		}
	}
}
