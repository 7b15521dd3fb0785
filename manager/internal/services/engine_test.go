package services

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
)

func honeypot(id string) Wanted { return Wanted{ID: id, Label: "test", Image: "honeypot:1"} }

func TestEngineServices(t *testing.T) {
	b := newBench(t)
	b.begin()
	defer func() { b.end() }()
	b.services.SetWanted([]Wanted{honeypot("1"), {ID: "2", Label: "raw", Image: "honeypot:1", Raw: true}})
	steps := []struct {
		name string
		step func(*testing.T, *bench)
	}{
		{"runs confined in its sandbox", runsConfined},
		{"raw network access is the engine's own network", runsRaw},
		{"killed honeypot returns to its sandbox", returnsToSandbox},
		{"next run takes over", takesOver},
		{"engine restarts", survivesEngine},
		{"leftovers go and strangers stay", sweeps},
		{"removal leaves nothing", leavesNothing},
	}
	for _, s := range steps {
		if !t.Run(s.name, func(t *testing.T) {
			b.t = t
			s.step(t, b)
		}) {
			return
		}
	}
}

func runsConfined(t *testing.T, b *bench) {
	sandbox, pot := b.running("1")
	if a, b := namespace(t, sandbox, "net"), namespace(t, pot, "net"); a != b {
		t.Errorf("honeypot is in %s, its sandbox in %s", b, a)
	}
	if own, err := os.Readlink("/proc/self/ns/net"); err != nil || own == namespace(t, pot, "net") {
		t.Errorf("honeypot is in the network namespace of the machine (%v)", err)
	}
	for what, got := range map[string]string{
		"capabilities of the sandbox":   status(t, sandbox, "CapBnd"),
		"privileges of the sandbox":     status(t, sandbox, "NoNewPrivs"),
		"user of the sandbox":           strings.Fields(status(t, sandbox, "Uid"))[0],
		"capabilities of the honeypot":  status(t, pot, "CapBnd"),
		"privileges of the honeypot":    status(t, pot, "NoNewPrivs"),
		"first port without privileges": sysctl(t, b, sandbox, "net/ipv4/ip_unprivileged_port_start"),
		"IPv6 switched off":             sysctl(t, b, sandbox, "net/ipv6/conf/all/disable_ipv6"),
	} {
		want := map[string]string{
			"capabilities of the sandbox": "0000000000000000", "privileges of the sandbox": "1", "user of the sandbox": "65534",
			// CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, NET_BIND_SERVICE,
			// NET_ADMIN, NET_RAW, SYS_CHROOT: capability.h.
			"capabilities of the honeypot": fmt.Sprintf("%016x", 1<<0|1<<1|1<<3|1<<5|1<<6|1<<7|1<<10|1<<12|1<<13|1<<18),
			"privileges of the honeypot":   "1", "first port without privileges": "0", "IPv6 switched off": "0",
		}[what]
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	if pot.HostConfig.Memory != 64<<20 || *pot.HostConfig.PidsLimit != 50 || !sandbox.HostConfig.ReadonlyRootfs {
		t.Errorf("limits are %+v", pot.HostConfig.Resources)
	}
	if last := NewDocker(b.Client, b.log).LastLine(t.Context(), pot.ID); last != "reports to 10.10.10.1:5556" {
		t.Errorf("its last line is %q", last)
	}
}

func runsRaw(t *testing.T, b *bench) {
	b.eventually("service 2 runs", func() bool { return b.state("2").Status == Running })
	pot := b.inspect("s2")
	host, err := os.Readlink(b.Host.Path())
	if err != nil {
		t.Fatal(err)
	}
	if got := namespace(t, pot, "net"); got != host {
		t.Errorf("it is in %s, the engine in %s", got, host)
	}
	if !strings.Contains(strings.Join(pot.Config.Env, " "), "INTERFACE=eth0") {
		t.Errorf("its environment is %v", pot.Config.Env)
	}
}

func returnsToSandbox(t *testing.T, b *bench) {
	sandbox, pot := b.running("1")
	if err := syscall.Kill(pot.State.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.eventually("its end is told with its last line", func() bool {
		return strings.Contains(b.state("1").Reason, "code 137: reports to")
	})
	b.eventually("it runs again", func() bool {
		now := b.inspect("s1")
		return now.State.Running && now.State.Pid != pot.State.Pid
	})
	again := b.inspect("s1")
	if again.ID != pot.ID || b.inspect("s1.net").State.Pid != sandbox.State.Pid {
		t.Error("it is another container, or has another sandbox")
	}
	if a, b := namespace(t, sandbox, "net"), namespace(t, again, "net"); a != b {
		t.Errorf("honeypot is in %s, its sandbox in %s", b, a)
	}
}

func takesOver(t *testing.T, b *bench) {
	sandbox, pot := b.inspect("s1.net"), b.inspect("s1")
	b.end()
	b.begin()
	newSandbox, newPot := b.running("1")
	if sandbox.ID != newSandbox.ID || pot.ID != newPot.ID || newPot.State.Pid != pot.State.Pid {
		t.Error("containers were replaced although nothing has changed")
	}
}

func survivesEngine(t *testing.T, b *bench) {
	old, _ := b.running("1")
	b.Stop()
	b.eventually("the absence is told", func() bool { return b.services.EngineError() != nil })
	b.Run()
	b.eventually("the engine is back", func() bool { return b.services.EngineError() == nil })
	sandbox, pot := b.running("1")
	if sandbox.ID == old.ID {
		t.Error("the sandbox is the old one")
	}
	if a, b := namespace(t, sandbox, "net"), namespace(t, pot, "net"); a != b {
		t.Errorf("honeypot is in %s, its sandbox in %s", b, a)
	}
}

func sweeps(t *testing.T, b *bench) {
	create := func(name string, labels map[string]string, env ...string) string {
		t.Helper()
		created, err := b.Client.ContainerCreate(t.Context(), &container.Config{
			Image: "services.invalid/honeypot:1", Labels: labels, Env: env,
		}, &container.HostConfig{NetworkMode: "none"}, &network.NetworkingConfig{}, nil, name)
		if err != nil {
			t.Fatal(err)
		}
		return created.ID
	}
	leftover := create("leftover", map[string]string{labelRole: string(Honeypot), labelService: "11"})
	python := create("s3", nil, "COLLECTOR_HOST=10.10.10.1", "COLLECTOR_PORT=5556")
	stranger := create("s4", nil, "COLLECTOR_HOST=10.10.10.1")
	b.services.SetWanted([]Wanted{honeypot("1"), honeypot("3"), honeypot("4")})
	b.running("3")
	b.eventually("the stranger's name is told", func() bool {
		return b.state("4").Status != Running && strings.Contains(b.state("4").Reason, `"/s4" is already in use`)
	})
	for id, want := range map[string]bool{leftover: false, python: false, stranger: true} {
		_, err := b.Client.ContainerInspect(t.Context(), id)
		if there := !cerrdefs.IsNotFound(err); there != want {
			t.Errorf("container %.12s there: %v, want %v", id, there, want)
		}
	}
	if err := b.Client.ContainerRemove(t.Context(), stranger, container.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	b.eventually("service 4 is made", func() bool { return b.state("4").ContainerID != "" && b.inspect("s4").State.Running })
}

func leavesNothing(t *testing.T, b *bench) {
	b.services.SetWanted(nil)
	b.eventually("all containers are gone", func() bool {
		list, err := b.Client.ContainerList(t.Context(), container.ListOptions{All: true})
		return err == nil && len(list) == 0
	})
	b.eventually("only the pause image stays", func() bool {
		list, err := b.Client.ImageList(t.Context(), image.ListOptions{})
		return err == nil && len(list) == 1 && strings.HasPrefix(list[0].RepoTags[0], "programs.invalid/pause:")
	})
}

func namespace(t *testing.T, c container.InspectResponse, kind string) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.State.Pid, kind))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// status returns a line of a container's /proc/PID/status.
func status(t *testing.T, c container.InspectResponse, field string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.State.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in its status", field)
	return ""
}

// sysctl reads a setting in a container's network namespace.
func sysctl(t *testing.T, b *bench, c container.InspectResponse, path string) string {
	t.Helper()
	out, err := b.Host.Try("nsenter", "-t", fmt.Sprint(c.State.Pid), "-n", "cat", "/proc/sys/"+path)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(out)
}
