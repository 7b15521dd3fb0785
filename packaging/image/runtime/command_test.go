package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var someID = strings.Repeat("0123456789abcdef", 4)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		line string
		want command
	}{
		"create": {
			"--root /r --log /l.json --log-format json create --bundle /b --pid-file /p " + someID,
			command{name: "create", bundle: "/b", id: someID, log: "/l.json"},
		},
		"create, the other form": {"--log=/l create --bundle=/b " + someID, command{name: "create", bundle: "/b", id: someID, log: "/l"}},
		"delete":                 {"--root /r delete --force " + someID, command{name: "delete", id: someID}},
		"another name":           {"create --bundle /b buildkit-1", command{}},
		"a path":                 {"delete ../../" + someID, command{}},
		"another command":        {"state " + someID, command{}},
		"without a container":    {"create", command{}},
		"nothing":                {"--version", command{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := parse(strings.Fields(test.line)); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestBundle(t *testing.T) {
	write := func(spec string) *bundle {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(spec), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := readBundle(dir, someID)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := write(`{
		"root": {"path": "/data/overlay2/layer/merged"},
		"process": {"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 7, "soft": 7}, {"type": "RLIMIT_FSIZE", "hard": 1048576, "soft": 1}]},
		"mounts": [{"source": "/data/volumes/v/_data"}, {"source": "/data/volumesque"}, {"source": "proc"}],
		"number": 9007199254740993
	}`)
	if b.limit() != 1<<20 || !b.stacked() || b.layer != "/data/overlay2/layer" || b.dir != "/data/containers/"+someID {
		t.Errorf("it is %+v", b)
	}
	if err := b.dropVolumes(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(b.path)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) || strings.Contains(string(text), "_data") || !strings.Contains(string(text), "volumesque") || !strings.Contains(string(text), "9007199254740993") {
		t.Errorf("it became %s", text)
	}
	for name, spec := range map[string]string{
		"no limit":      `{"root": {"path": "/data/overlay2/layer/merged"}}`,
		"unlimited":     `{"process": {"rlimits": [{"type": "RLIMIT_FSIZE", "hard": 18446744073709551615}]}}`,
		"copied layers": `{"root": {"path": "/data/vfs/dir/layer"}, "process": {"rlimits": [{"type": "RLIMIT_FSIZE", "hard": 1048576}]}}`,
	} {
		if b := write(spec); b.limit() != 0 && b.stacked() {
			t.Errorf("%s: its files are bounded to %d", name, b.limit())
		}
	}
	if _, err := readBundle(t.TempDir(), someID); err == nil {
		t.Error("a bundle without a specification is read")
	}
}

// TestLikewise: a directory that was left half made becomes what it is to be.
func TestLikewise(t *testing.T) {
	model, dir := t.TempDir(), filepath.Join(t.TempDir(), "upper")
	if err := os.Chmod(model, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := likewise(model, dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
}

// TestReport: containerd finds the reason where runc writes it.
func TestReport(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log.json")
	report(log, os.ErrPermission)
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var line struct{ Level, Msg string }
	if err := json.Unmarshal(text, &line); err != nil || line.Level != "error" || line.Msg != os.ErrPermission.Error() {
		t.Errorf("it wrote %q: %v", text, err)
	}
}
