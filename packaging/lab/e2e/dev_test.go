package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
)

// TestE2EDev has `make dev` follow a copy of the sources: what is edited shows in
// the running sensor, only the daemon that changed starts again, and Ctrl-C
// leaves nothing.
func TestE2EDev(t *testing.T) {
	machineIsUntouched(t)
	s := labtest.New(t, "develop")
	checkout := copySources(t)
	missing := devCommand(t, s, checkout)
	out, err := missing.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no configuration archive in packaging/conf") {
		t.Errorf("without a configuration archive: %v\n%s", err, out)
	}

	labtest.Must(t, s.Up(t.Context()))
	labtest.Must(t, docker(t, s, "load", "--input", unpackedImage(t)))
	before := engineContents(t, s)
	config, err := s.Configuration(t.Context())
	labtest.Must(t, err)
	conf := filepath.Join(checkout, "packaging", "conf")
	labtest.Must(t, os.Mkdir(conf, 0o755))
	labtest.Must(t, os.Rename(config, filepath.Join(conf, filepath.Base(config))))

	dev := startDev(t, s, checkout)
	dev.says(t, "the development sensor runs")
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	_, err = s.Server.WaitSensor(ctx, s.Sensor.ID, func(sensor admin.Sensor) bool { return sensor.Status != nil })
	labtest.Must(t, err)
	dev.says(t, "DEBUG")

	t.Run("manager", func(t *testing.T) {
		helper, manager := dev.pid("nethelper"), dev.pid("manager")
		edit(t, filepath.Join(checkout, "manager/internal/app/app.go"), `"manager starts"`, `"manager starts, edited"`)
		dev.inEffect(t, "manager restarted")
		dev.says(t, "manager starts, edited")
		if dev.pid("nethelper") != helper || dev.pid("manager") == manager {
			t.Errorf("nethelper was %s and is %s, manager was %s and is %s", helper, dev.pid("nethelper"), manager, dev.pid("manager"))
		}
	})
	t.Run("nethelper", func(t *testing.T) {
		helper, manager := dev.pid("nethelper"), dev.pid("manager")
		edit(t, filepath.Join(checkout, "nethelper/serve.go"), `log.Info("serving"`, `log.Info("serving, edited"`)
		dev.inEffect(t, "nethelper restarted")
		dev.says(t, "serving, edited")
		if dev.pid("nethelper") == helper || dev.pid("manager") != manager {
			t.Errorf("nethelper was %s and is %s, manager was %s and is %s", helper, dev.pid("nethelper"), manager, dev.pid("manager"))
		}
	})
	t.Run("mistake", func(t *testing.T) {
		manager := dev.pid("manager")
		file := filepath.Join(checkout, "manager/internal/app/app.go")
		edit(t, file, `log.Info("manager starts, edited"`, `log.Nonsense("manager starts, edited"`)
		dev.says(t, "log.Nonsense undefined")
		dev.says(t, "the sensor stays as it is")
		if got := dev.pid("manager"); got != manager {
			t.Errorf("manager was %s and is %s", manager, got)
		}
	})

	labtest.Must(t, syscall.Kill(-dev.cmd.Process.Pid, syscall.SIGINT))
	dev.ends(t)
	if after := engineContents(t, s); after != before {
		t.Errorf("engine before:\n%s\nafter:\n%s", before, after)
	}
}

// development is a running `make dev`.
type development struct {
	t   *testing.T
	s   *scenario.Scenario
	cmd *exec.Cmd
	end chan error

	mu     sync.Mutex
	output bytes.Buffer
	// read is how much of the output was waited for.
	read int
}

func (d *development) Write(data []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.output.Write(data)
}

func startDev(t *testing.T, s *scenario.Scenario, checkout string) *development {
	t.Helper()
	d := &development{t: t, s: s, cmd: devCommand(t, s, checkout), end: make(chan error, 1)}
	d.cmd.Stdout, d.cmd.Stderr = d, d
	// A group of its own, as a terminal gives it: Ctrl-C is for all of it.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	labtest.Must(t, d.cmd.Start())
	go func() { d.end <- d.cmd.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		if t.Failed() {
			d.mu.Lock()
			defer d.mu.Unlock()
			t.Logf("make dev:\n%s", d.output.String())
		}
	})
	return d
}

// says waits for a line in what was printed since the last one that was waited
// for, and returns it.
func (d *development) says(t *testing.T, text string) string {
	t.Helper()
	var line string
	eventually(t, fmt.Sprintf("`make dev` prints %q", text), func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		at := strings.Index(d.output.String()[d.read:], text)
		if at < 0 {
			return errors.New("not yet")
		}
		start := strings.LastIndexByte(d.output.String()[:d.read+at], '\n') + 1
		line, _, _ = strings.Cut(d.output.String()[start:], "\n")
		return nil
	})
	return strings.TrimSpace(line)
}

// inEffect waits until a change is in effect, and tells the time.
func (d *development) inEffect(t *testing.T, what string) {
	t.Helper()
	line := d.says(t, what)
	if !regexp.MustCompile(`^dev: ` + what + `, \d+\.\d s after the change$`).MatchString(line) {
		t.Errorf("`make dev` says %q", line)
	}
	t.Log(line)
}

// ends waits for the end after a Ctrl-C.
func (d *development) ends(t *testing.T) {
	t.Helper()
	select {
	case <-d.end:
	case <-time.After(time.Minute):
		t.Error("`make dev` does not end by Ctrl-C")
	}
}

// pid returns that of a daemon in the container, as its supervisor knows it.
func (d *development) pid(daemon string) string {
	d.t.Helper()
	out, err := d.s.Lab.Docker(d.t.Context(), "exec", "honeysens-dev-sensor-1", "s6-svstat", "-p", "/etc/sensor/services/"+daemon).CombinedOutput()
	if err != nil {
		d.t.Errorf("pid of %s: %v: %s", daemon, err, out)
	}
	return strings.TrimSpace(string(out))
}

// devCommand returns `make dev` for the engine of the lab, with the image that
// was built before.
func devCommand(t *testing.T, s *scenario.Scenario, checkout string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("make", "--no-print-directory", "dev", "REVISION="+s.Revision())
	cmd.Dir = checkout
	cmd.Env = append(s.Lab.Docker(t.Context()).Env, "DEV_IMAGE=honeysens/sensorx86:"+s.Revision())
	cmd.Env = slices.DeleteFunc(cmd.Env, func(entry string) bool { return strings.HasPrefix(entry, "MAKE") })
	return cmd
}

// copySources returns a copy of the checkout that may be edited.
func copySources(t *testing.T) string {
	t.Helper()
	root, to := labtest.Root(t), t.TempDir()
	copies := exec.Command("cp", "-r", "Makefile", "go.mod", "go.sum", "manager", "nethelper", "cni", "shared", "packaging", to)
	copies.Dir = root
	if out, err := copies.CombinedOutput(); err != nil {
		t.Fatalf("copy the sources: %v: %s", err, out)
	}
	labtest.Must(t, os.RemoveAll(filepath.Join(to, "packaging", "conf")))
	tools := filepath.Join(to, "out", "tools")
	labtest.Must(t, os.MkdirAll(tools, 0o755))
	compose, err := filepath.Glob(filepath.Join(root, "out", "tools", "docker-compose-*"))
	if err != nil || len(compose) == 0 {
		t.Fatalf("Docker Compose is not built: %v", err)
	}
	for _, path := range compose {
		if out, err := exec.Command("cp", path, tools).CombinedOutput(); err != nil {
			t.Fatalf("copy Docker Compose: %v: %s", err, out)
		}
	}
	return to
}

// unpackedImage returns the image of the sensor's archive as a file.
func unpackedImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("tar", "-xzf", labtest.Built(t, "HoneySens-Firmware-dockerx86-*.tar.gz"), "-C", dir, "firmware.img").CombinedOutput()
	if err != nil {
		t.Fatalf("unpack image: %v: %s", err, out)
	}
	return filepath.Join(dir, "firmware.img")
}

// engineContents lists containers, volumes and networks of the lab's engine.
func engineContents(t *testing.T, s *scenario.Scenario) string {
	t.Helper()
	var all strings.Builder
	for _, args := range [][]string{{"ps", "--all", "--format", "{{.Names}}"}, {"volume", "ls", "--quiet"}, {"network", "ls", "--format", "{{.Name}}"}} {
		cmd := s.Lab.Docker(t.Context(), args...)
		cmd.Stderr = io.Discard
		out, err := cmd.Output()
		labtest.Must(t, err)
		fmt.Fprintf(&all, "%v: %s\n", args, out)
	}
	return all.String()
}

func docker(t *testing.T, s *scenario.Scenario, args ...string) error {
	t.Helper()
	if out, err := s.Lab.Docker(t.Context(), args...).CombinedOutput(); err != nil {
		return fmt.Errorf("docker %v: %w: %s", args, err, out)
	}
	return nil
}

// edit replaces a text in a file as an editor does: by another file.
func edit(t *testing.T, path, from, to string) {
	t.Helper()
	text, err := os.ReadFile(path)
	labtest.Must(t, err)
	if strings.Count(string(text), from) != 1 {
		t.Fatalf("%s holds %q %d times", path, from, strings.Count(string(text), from))
	}
	next := path + "~"
	labtest.Must(t, os.WriteFile(next, []byte(strings.ReplaceAll(string(text), from, to)), 0o644))
	labtest.Must(t, os.Rename(next, path))
}
