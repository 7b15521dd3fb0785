package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
)

// TestE2EGuide has an operator do what the guides say, command by command: the
// demo, and in its lab the deployment by the archive's guide, and the migration
// from an older sensor and back.
func TestE2EGuide(t *testing.T) {
	machineIsUntouched(t)
	s := labtest.New(t, "guide")
	demo(t, s)
	_, err := s.Compose(t.Context(), "down", "--volumes")
	labtest.Must(t, err)
	labtest.Must(t, docker(t, s, "image", "rm", "--force", "honeysens/sensorx86:"+s.Revision()))

	archive := labtest.Built(t, "HoneySens-Firmware-dockerx86-*.tar.gz")
	unpacked := t.TempDir()
	if out, err := exec.Command("tar", "-xzf", archive, "-C", unpacked).CombinedOutput(); err != nil {
		t.Fatalf("unpack the archive: %v: %s", err, out)
	}
	op := newOperator(t, s, archive)
	t.Run("deployment", func(t *testing.T) {
		labtest.Diagnose(t, s)
		op.follow(t, filepath.Join(unpacked, "README.md"))
	})
	t.Run("migration", func(t *testing.T) {
		op.deployOld(t, unpacked)
		labtest.Diagnose(t, s)
		op.follow(t, filepath.Join(unpacked, "MIGRATION.md"))
		op.do(t, "docker compose down --volumes")
	})
	demoDown(t, s)
}

// demo is `make demo` with what is built. What the README suggests to do with the
// lab afterwards is done, too.
func demo(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	lab := func(args ...string) *exec.Cmd { return labProgram(t, s, []string{"out/bin/lab"}, args...) }
	out, err := lab("demo", labtest.Built(t, "HoneySens-Firmware-dockerx86-*.tar.gz"), labtest.Built(t, "recon-*.tar.gz"), labtest.Built(t, "honeypot-*.tar.gz")).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if last := regexp.MustCompile(`^demo: (\d+)/(\d+) attacks arrived as events$`).FindStringSubmatch(lines[len(lines)-1]); err != nil || last == nil || last[1] != last[2] {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	sensors, err := s.Server.Sensors(t.Context())
	labtest.Must(t, err)
	services, err := s.Server.Services(t.Context())
	labtest.Must(t, err)
	s.Sensor, s.Recon, s.Honeypot, s.Dir = sensors[0], services[0], services[1], filepath.Join(s.Lab.Dir(), "sensor")
	if out, err := lab("exec", "attacker", "nmap", "-Pn", host.SensorV4).CombinedOutput(); err != nil || !strings.Contains(string(out), "22/tcp") {
		t.Errorf("a further attack: %v\n%s", err, out)
	}
}

// demoDown is `make demo-down`.
func demoDown(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	if out, err := labProgram(t, s, []string{"go", "run", "./packaging/lab"}, "down").CombinedOutput(); err != nil {
		t.Errorf("demo-down: %v: %s", err, out)
	}
	left, err := filepath.Glob("/run/netns/guide-*")
	labtest.Must(t, err)
	if _, err := os.Stat(s.Lab.Dir()); !os.IsNotExist(err) || len(left) > 0 {
		t.Errorf("the lab is still there: %s: %v, namespaces %v", s.Lab.Dir(), err, left)
	}
}

// labProgram has the program lab, which may be a command to run it from source,
// do something with the lab of this test instead of the demo's.
func labProgram(t *testing.T, s *scenario.Scenario, program []string, args ...string) *exec.Cmd {
	t.Helper()
	words := slices.Concat(program, []string{"--prefix", "guide", "--dir", s.Lab.Dir()}, args)
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	cmd.Dir = labtest.Root(t)
	return cmd
}

// operator follows guides on the sensor host.
type operator struct {
	s *scenario.Scenario
	// home is the operator's directory, dir where the last command left him, and
	// place what the guide calls /opt/honeysens.
	home, dir, place string
	started          time.Time
}

func newOperator(t *testing.T, s *scenario.Scenario, archive string) *operator {
	t.Helper()
	home := t.TempDir()
	config, err := s.Configuration(t.Context())
	labtest.Must(t, err)
	for from, to := range map[string]string{config: "s1.tar.gz", archive: filepath.Base(archive)} {
		if out, err := exec.Command("cp", from, filepath.Join(home, to)).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v: %s", from, err, out)
		}
	}
	return &operator{s: s, home: home, dir: home, place: filepath.Join(home, "honeysens")}
}

// commands returns the lines of a guide's code blocks, which are indented, without
// their comments.
func commands(t *testing.T, guide string) []string {
	t.Helper()
	text, err := os.ReadFile(guide)
	labtest.Must(t, err)
	var found []string
	block, item := true, false
	for line := range strings.Lines(string(text)) {
		trimmed := strings.TrimSpace(line)
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case trimmed == "":
			block = true
		case indent >= 7, block && indent >= 4 && !item:
			command, _, _ := strings.Cut(trimmed, " # ")
			found = append(found, strings.TrimSpace(command))
		default:
			block, item = false, regexp.MustCompile(`^([0-9]+\.|\*|-) `).MatchString(line) || (item && indent > 0)
		}
	}
	if len(found) == 0 {
		t.Fatalf("%s has no commands", guide)
	}
	return found
}

func (o *operator) follow(t *testing.T, guide string) {
	t.Helper()
	for _, command := range commands(t, guide) {
		o.do(t, command)
	}
}

// do enters a command. What differs from what is typed: there is no terminal, the
// directory of the deployment is elsewhere, and nobody watches a log for ever.
func (o *operator) do(t *testing.T, command string) {
	t.Helper()
	typed := command
	for from, to := range map[string]string{
		"compose exec ": "compose exec -T ", "compose run ": "compose run -T ", "/opt/honeysens": o.place,
		"/var/run/docker.sock:": strings.TrimPrefix(o.socket(t), "unix://") + ":",
	} {
		typed = strings.ReplaceAll(typed, from, to)
	}
	if strings.Contains(typed, " logs -f ") {
		typed = "timeout 3 " + typed + " || [ $? = 124 ]"
	}
	starts := strings.Contains(typed, "up -d") || strings.Contains(typed, "restart sensor")
	if starts {
		o.started = time.Now()
	}
	cwd := filepath.Join(o.home, ".cwd")
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	cmd := o.s.Lab.Command(ctx, host.Sensor, "bash", "-euc", typed+"\npwd >"+cwd)
	cmd.Dir = o.dir
	cmd.Env = append(o.s.Lab.Docker(ctx).Env, "HOME="+o.home, "HOST_PWD="+o.place)
	out, err := cmd.CombinedOutput()
	t.Logf("$ %s\n%s", command, shorten(string(out)))
	if err != nil {
		t.Fatalf("%s: %v", typed, err)
	}
	where, err := os.ReadFile(cwd)
	labtest.Must(t, err)
	o.dir, o.s.Dir = strings.TrimSpace(string(where)), o.place
	if starts {
		soon(t, o.s, o.started)
	}
}

func (o *operator) socket(t *testing.T) string {
	t.Helper()
	for _, entry := range o.s.Lab.Docker(t.Context()).Env {
		if socket, ok := strings.CutPrefix(entry, "DOCKER_HOST="); ok {
			return socket
		}
	}
	t.Fatal("the lab has no Docker engine")
	return ""
}

// deployOld has a sensor run from the compose file and under the name of an
// earlier release. Its image stands in for the Python sensor's.
func (o *operator) deployOld(t *testing.T, unpacked string) {
	t.Helper()
	old, err := os.ReadFile(filepath.Join(labtest.Root(t), "packaging/deploy/testdata/docker-compose.old.yml"))
	labtest.Must(t, err)
	labtest.Must(t, docker(t, o.s, "tag", "honeysens/sensorx86:"+o.s.Revision(), "honeysens/sensorx86:2.9.1"))
	o.place = filepath.Join(o.home, "python")
	o.dir = o.place
	labtest.Must(t, os.MkdirAll(filepath.Join(o.place, "conf"), 0o755))
	for name, text := range map[string]string{
		"docker-compose.yml": strings.ReplaceAll(string(old), "@REVISION@", "2.9.1"), ".env": "COMPOSE_PROJECT_NAME=python\n",
	} {
		labtest.Must(t, os.WriteFile(filepath.Join(o.place, name), []byte(text), 0o644))
	}
	for from, to := range map[string]string{filepath.Join(unpacked, "firmware.img"): "firmware.img", filepath.Join(o.home, "s1.tar.gz"): "conf/s1.tar.gz"} {
		if out, err := exec.Command("cp", from, filepath.Join(o.place, to)).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v: %s", from, err, out)
		}
	}
	o.do(t, "HOST_PWD=$(pwd) docker compose up -d")
}

func shorten(text string) string {
	if len(text) > 2000 {
		return text[:1000] + "\n...\n" + text[len(text)-1000:]
	}
	return text
}

// covered are the commands of the other guides, and the test that runs each; those
// without one are run by `make test` itself.
var covered = map[string]string{
	"make demo":                    "TestE2EGuide",
	"make demo-page":               "TestServePage",
	"make demo-down":               "TestE2EGuide",
	"make test":                    "",
	"make build":                   "",
	"make lint":                    "",
	"make test-unit":               "",
	"make dev":                     "TestE2EDev",
	"mkdir -p packaging/conf":      "TestE2EDev",
	"cp s1.tar.gz packaging/conf/": "TestE2EDev",
	"out/bin/lab exec attacker nmap -Pn 192.0.2.20":                                          "TestE2EGuide",
	"kubectl create namespace honeysens":                                                     "TestKubectl",
	"kubectl -n honeysens create secret generic sensor-node-1 --from-file=archive=s1.tar.gz": "TestKubectl",
	"kubectl label node node-1 honeysens.org/sensor=true":                                    "TestKubectl",
}

// notRun are commands that no test runs, and why not.
var notRun = map[string]string{
	"kubectl apply -f sensor.yaml":                          "there is no cluster; TestKubectl has kubectl read the file, TestManifest holds it to the API types",
	"kubectl -n honeysens get pods -o wide":                 "there is no cluster",
	"kubectl -n honeysens exec ds/sensor -- manager status": "there is no cluster; TestE2E runs `manager status` in a container",
}

// TestCommandsOfGuidesAreRun wants a test for each command of the guides that
// TestE2EGuide does not follow itself, or a reason why there is none, and no test
// named for one that is gone.
func TestCommandsOfGuidesAreRun(t *testing.T) {
	root := labtest.Root(t)
	sources, err := exec.Command("grep", "-rhoE", "--include=*_test.go", "^func Test[A-Za-z0-9_]+", filepath.Join(root, "packaging")).Output()
	labtest.Must(t, err)
	tests := strings.Fields(string(sources))
	seen := map[string]bool{}
	for _, guide := range []string{"README.md", "packaging/kubernetes/README.md"} {
		for _, line := range commands(t, filepath.Join(root, guide)) {
			if regexp.MustCompile(`^[a-z]+/ `).MatchString(line) {
				continue // the list of directories
			}
			seen[line] = true
			if why, ok := notRun[line]; ok {
				t.Logf("not run: %s: %s", line, why)
				continue
			}
			test, ok := covered[line]
			if !ok {
				t.Errorf("%s: no test runs %q", guide, line)
			} else if test != "" && !slices.Contains(tests, test) {
				t.Errorf("%s: %q is said to be run by %s, which is no test", guide, line, test)
			}
		}
	}
	for _, command := range slices.Concat(slices.Collect(maps.Keys(covered)), slices.Collect(maps.Keys(notRun))) {
		if !seen[command] {
			t.Errorf("no guide has the command %q", command)
		}
	}
	targets, err := os.ReadFile(filepath.Join(root, "Makefile"))
	labtest.Must(t, err)
	more, err := os.ReadFile(filepath.Join(root, "packaging", "packaging.mk"))
	labtest.Must(t, err)
	for _, guide := range []string{"README.md", "nethelper/README.md", "manager/README.md", "packaging/deploy/README.md"} {
		text, err := os.ReadFile(filepath.Join(root, guide))
		labtest.Must(t, err)
		for _, match := range regexp.MustCompile("`make ([a-z0-9-]+)").FindAllStringSubmatch(string(text), -1) {
			if !regexp.MustCompile(fmt.Sprintf("(?m)^%s:", match[1])).Match(slices.Concat(targets, more)) {
				t.Errorf("%s names `make %s`, which there is not", guide, match[1])
			}
		}
	}
}
