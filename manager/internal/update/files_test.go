package update

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOnlyTheImageChanges(t *testing.T) {
	const image = "honeysens/sensorx86:2.0"
	// The value stands where the mark is; the file must be as before around it.
	for name, text := range map[string]string{
		"plain":                  "services:\n  sensor:\n    image: @\n    tty: true\n",
		"comments everywhere":    "# top\nservices: # all\n  # one\n  sensor: # ours\n    # the image\n    image: @ # updates change this\n    # after\n    tty: true # as before\n# end\n",
		"double quotes":          "services:\n  sensor:\n    image: \"honeysens/sensorx86:1.0\" # old\n",
		"single quotes":          "services:\n  sensor:\n    image: 'honeysens/sensorx86:1.0'\n",
		"flow style":             "services: {sensor: {tty: true, image: @, restart: always}}\n",
		"JSON":                   "{\"services\": {\"sensor\": {\"image\": \"honeysens/sensorx86:1.0\"}}}\n",
		"image last, no newline": "services:\n  sensor:\n    tty: true\n    image: @",
		"CRLF":                   "services:\r\n  sensor:\r\n    image: @\r\n    tty: true\r\n",
		"aligned with blanks":    "services:\n  sensor:\n    image:      @     # far\n    tty:        true\n",
		"document marks":         "%YAML 1.1\n---\nservices:\n  sensor:\n    image: @\n...\n",
		"characters of Unicode":  "# Größe: 5 µm — ☃\nservices:\n  sensor: {container_name: \"süß☃\", image: @}\n",
		"the same image twice":   "services:\n  first:\n    image: honeysens/sensorx86:1.0\n  sensor:\n    image: @\n  last:\n    image: honeysens/sensorx86:1.0\n",
		"anchors elsewhere":      "x-log: &log {driver: journald}\nservices:\n  other: &other\n    image: busybox\n    logging: *log\n  sensor:\n    logging: *log\n    image: @\n  third:\n    <<: *other\n",
		"as Python dumps it":     "services:\n  sensor:\n    environment:\n    - IFACE=eth0\n    image: @\n    volumes:\n    - /a:/b\nversion: '3'\nvolumes:\n  docker_overlay: null\n",
		"key in quotes":          "\"services\":\n  'sensor':\n    \"image\": @\n",
		"a variable":             "services:\n  sensor:\n    image: \"honeysens/sensorx86:${REVISION:-1.0}\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			before := strings.ReplaceAll(text, "@", "honeysens/sensorx86:1.0")
			got, err := EditCompose([]byte(before), "sensor", image)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(got), image); n != 1 {
				t.Errorf("the image is there %d times:\n%s", n, got)
			}
			// Undone, nothing but quotes may differ.
			quiet := strings.NewReplacer("\"", "", "'", "", "${REVISION:-1.0}", "1.0")
			undone := quiet.Replace(strings.Replace(string(got), image, "honeysens/sensorx86:1.0", 1))
			if diff := cmp.Diff(quiet.Replace(before), undone); diff != "" {
				t.Errorf("more has changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestComposeFileThatCannotBeChanged(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no YAML":           {"services: [", "read compose file"},
		"empty":             {"", "no such value"},
		"no service":        {"services:\n  other:\n    image: a\n", "no such value"},
		"no image":          {"services:\n  sensor:\n    build: .\n", "no such value"},
		"image from merged": {"x: &x {image: a:1}\nservices:\n  sensor:\n    <<: *x\n", "no such value"},
		"alias":             {"x-image: &i a:1\nservices:\n  sensor:\n    image: *i\n", "want plain text"},
		"anchor":            {"services:\n  sensor:\n    image: &i a:1\n  other:\n    image: *i\n", "want plain text"},
		"block":             {"services:\n  sensor:\n    image: >-\n      a:1\n", "on one line"},
		"two lines":         {"services:\n  sensor:\n    image: \"a\n      b\"\n", "on one line"},
		"escaped":           {"services:\n  sensor:\n    image: \"a\\x3a1\"\n", "on one line"},
		"tagged":            {"services:\n  sensor:\n    image: !!str a:1\n", "on one line"},
		"a mapping":         {"services:\n  sensor:\n    image: {a: b}\n", "want plain text"},
		"empty value":       {"services:\n  sensor:\n    image:\n", "on one line"},
		"services a list":   {"services:\n- sensor\n", "no such value"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := EditCompose([]byte(c.text), "sensor", "b:2")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, %v; want an error with %q", got, err, c.want)
			}
		})
	}
}

func TestOnlyTheProjectsLineChanges(t *testing.T) {
	for name, c := range map[string]struct{ before, after string }{
		"alone":          {"COMPOSE_PROJECT_NAME=a\n", "COMPOSE_PROJECT_NAME=b\n"},
		"no newline":     {"COMPOSE_PROJECT_NAME=a", "COMPOSE_PROJECT_NAME=b"},
		"between":        {"# c\nX=1\nCOMPOSE_PROJECT_NAME=a\nY=2 # d\n", "# c\nX=1\nCOMPOSE_PROJECT_NAME=b\nY=2 # d\n"},
		"quotes":         {"COMPOSE_PROJECT_NAME=\"a\" # c\n", "COMPOSE_PROJECT_NAME=b # c\n"},
		"single quotes":  {"COMPOSE_PROJECT_NAME='a'\n", "COMPOSE_PROJECT_NAME=b\n"},
		"export, blanks": {"  export COMPOSE_PROJECT_NAME = a # c\n", "  export COMPOSE_PROJECT_NAME = b # c\n"},
		"CRLF":           {"X=1\r\nCOMPOSE_PROJECT_NAME=a\r\nY=2\r\n", "X=1\r\nCOMPOSE_PROJECT_NAME=b\r\nY=2\r\n"},
		"empty value":    {"COMPOSE_PROJECT_NAME=\nX=1\n", "COMPOSE_PROJECT_NAME=b\nX=1\n"},
		"the last wins":  {"COMPOSE_PROJECT_NAME=x\nCOMPOSE_PROJECT_NAME=a\n", "COMPOSE_PROJECT_NAME=x\nCOMPOSE_PROJECT_NAME=b\n"},
		"commented out":  {"#COMPOSE_PROJECT_NAME=x\n", "#COMPOSE_PROJECT_NAME=x\nCOMPOSE_PROJECT_NAME=b\n"},
		"similar names":  {"MY_COMPOSE_PROJECT_NAME=x\nCOMPOSE_PROJECT_NAMES=y", "MY_COMPOSE_PROJECT_NAME=x\nCOMPOSE_PROJECT_NAMES=y\nCOMPOSE_PROJECT_NAME=b\n"},
		"no such file":   {"", "COMPOSE_PROJECT_NAME=b\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := string(EditEnv([]byte(c.before), "b"))
			if diff := cmp.Diff(c.after, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if again := string(EditEnv([]byte(got), "b")); again != got {
				t.Errorf("a second time makes it %q", again)
			}
		})
	}
}

// deployment writes files and returns what leads to them.
func deployment(t *testing.T, texts map[string]string, compose ...string) (files, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	d := Deployment{Dir: dir, Service: "sensor"}
	for _, name := range compose {
		d.Files = append(d.Files, filepath.Join(dir, name))
	}
	copies := filepath.Join(dir, "state")
	if err := os.Mkdir(copies, 0o700); err != nil {
		t.Fatal(err)
	}
	return newFiles(copies, d), dir
}

func textsIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		texts[e.Name()] = string(text)
	}
	return texts
}

var nextRevision = &Record{Offer: Offer{Revision: "2.0"}, To: Sensor{Project: "hs-2"}}

// TestFilesChangeAndComeBack goes there and back, twice each, as after kills.
func TestFilesChangeAndComeBack(t *testing.T) {
	base := "services:\n  sensor:\n    image: honeysens/sensorx86:1.0 # here\n    tty: true\n"
	later := "services:\n  sensor:\n    environment: [A=1]\n"
	env := "A=1\nCOMPOSE_PROJECT_NAME=hs\n"
	with := func(text string) string { return strings.Replace(text, ":1.0", ":2.0", 1) }
	for name, c := range map[string]struct {
		before  map[string]string
		compose []string
		after   map[string]string
	}{
		"one file": {
			map[string]string{"docker-compose.yml": base, ".env": env}, []string{"docker-compose.yml"},
			map[string]string{"docker-compose.yml": with(base), ".env": "A=1\nCOMPOSE_PROJECT_NAME=hs-2\n"},
		},
		"an override without an image": {
			map[string]string{"a.yml": base, "b.yml": later, ".env": env}, []string{"a.yml", "b.yml"},
			map[string]string{"a.yml": with(base), "b.yml": later, ".env": "A=1\nCOMPOSE_PROJECT_NAME=hs-2\n"},
		},
		"an override with the image": {
			map[string]string{"a.yml": base, "b.yml": base, ".env": env}, []string{"a.yml", "b.yml"},
			map[string]string{"a.yml": base, "b.yml": with(base), ".env": "A=1\nCOMPOSE_PROJECT_NAME=hs-2\n"},
		},
		"no .env": {
			map[string]string{"docker-compose.yml": base}, []string{"docker-compose.yml"},
			map[string]string{"docker-compose.yml": with(base), ".env": "COMPOSE_PROJECT_NAME=hs-2\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, dir := deployment(t, c.before, c.compose...)
			for range 2 {
				for _, do := range []func() error{f.keep, func() error { return f.change(nextRevision) }} {
					if err := do(); err != nil {
						t.Fatal(err)
					}
				}
				if diff := cmp.Diff(c.after, textsIn(t, dir)); diff != "" {
					t.Errorf("changed (-want +got):\n%s", diff)
				}
			}
			for range 2 {
				if err := f.restore(); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(c.before, textsIn(t, dir)); diff != "" {
					t.Errorf("restored (-want +got):\n%s", diff)
				}
			}
			if err := f.forget(); err != nil {
				t.Fatal(err)
			}
			if left := textsIn(t, filepath.Join(dir, "state")); len(left) > 0 {
				t.Errorf("copies are left: %v", left)
			}
		})
	}
}

func TestFilesKeepOwnerModeAndLink(t *testing.T) {
	f, dir := deployment(t, map[string]string{"real.yml": composeText, ".env": envText}, "docker-compose.yml")
	link, env := filepath.Join(dir, "docker-compose.yml"), filepath.Join(dir, ".env")
	if err := os.Symlink("real.yml", link); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(env, 0o604); err != nil {
		t.Fatal(err)
	}
	owner := os.Getuid()
	if owner == 0 {
		owner = 4711
		if err := os.Chown(env, owner, 4712); err != nil {
			t.Fatal(err)
		}
	}
	look := func(when string) {
		t.Helper()
		info, err := os.Stat(env)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Uid; int(got) != owner || info.Mode().Perm() != 0o604 {
			t.Errorf("%s: .env belongs to %d and has mode %o", when, got, info.Mode().Perm())
		}
		if target, err := os.Readlink(link); err != nil || target != "real.yml" {
			t.Errorf("%s: docker-compose.yml leads to %q, %v", when, target, err)
		}
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{{"kept", f.keep}, {"changed", func() error { return f.change(nextRevision) }}, {"restored", f.restore}} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		look(step.name)
	}
}

// TestFreshEnvCanBeRead: compose is not always run by root.
func TestFreshEnvCanBeRead(t *testing.T) {
	f, dir := deployment(t, map[string]string{"docker-compose.yml": composeText}, "docker-compose.yml")
	if err := f.keep(); err != nil {
		t.Fatal(err)
	}
	if err := f.change(nextRevision); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, ".env"))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestFilesTooLargeStay(t *testing.T) {
	f, dir := deployment(t, map[string]string{"docker-compose.yml": composeText + strings.Repeat("# much\n", maxCompose/7), ".env": envText}, "docker-compose.yml")
	if err := f.keep(); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("keep: %v", err)
	}
	if got := textsIn(t, dir)[".env"]; got != envText {
		t.Errorf(".env is %q", got)
	}
}

func FuzzEditCompose(f *testing.F) {
	f.Add([]byte(composeText), "b")
	f.Add([]byte("services: {sensor: {image: 'a', tty: true}} # c\r\n"), "x/y:1")
	f.Add([]byte("a: &a b\nservices:\n  sensor:\n    image: *a\n"), "b")
	f.Fuzz(func(t *testing.T, text []byte, image string) {
		if !tagName.MatchString(image) {
			return
		}
		image = imageFor + image
		edited, err := EditCompose(text, "sensor", image)
		if err != nil {
			return
		}
		again, err := EditCompose(edited, "sensor", image)
		if err != nil || string(again) != string(edited) {
			t.Errorf("%q became %q and then %q, %v", text, edited, again, err)
		}
	})
}
