package passage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// cell is something that happens to a firewall.
type cell struct {
	name string
	do   func()
	// heals is true when it removes rules of ours while the firewall drops.
	heals bool
}

// firewall is one of other people's, in a room on the lab's host.
type firewall struct {
	// start brings it up, and returns what happens to it later. After the last
	// cell it is complete again.
	start func(*room) []cell
	needs []string
	// kind is how it is reported, forward and input are the ways that it closes.
	// One that closes none is not reported.
	kind           string
	forward, input bool
}

// firewalls are those that this machine can have: Docker has one for nftables from
// 29 on, and others have no such case.
func firewalls() map[string]firewall {
	all := map[string]firewall{
		"Docker on iptables-nft": {
			start: func(r *room) []cell { return startDockerIptables(r, "nft") }, kind: kindIptables, forward: true, needs: []string{"dockerd", "iptables-nft"},
		},
		"Docker on iptables-legacy": {
			start: func(r *room) []cell { return startDockerIptables(r, "legacy") }, kind: kindLegacy, forward: true, needs: []string{"dockerd", "iptables-legacy"},
		},
		"ufw":           {start: startUFW, kind: kindIptables, forward: true, input: true, needs: []string{"ufw"}},
		"firewalld":     {start: startFirewalld, kind: kindNftables, input: true, needs: []string{"firewalld", "dbus-daemon"}},
		"nftables.conf": {start: startNftables, kind: kindNftables, forward: true, input: true},
	}
	if help, err := exec.Command("dockerd", "--help").Output(); err == nil && strings.Contains(string(help), "--firewall-backend") {
		all["Docker on nftables"] = firewall{start: startDockerNftables, needs: []string{"dockerd"}}
	}
	return all
}

// runDocker starts Docker with a bridge of its own.
func runDocker(r *room, options ...string) (*exec.Cmd, func()) {
	socket := filepath.Join(r.dir, "docker.sock")
	return r.daemon(func() error { return answers(socket) }, "dockerd", append([]string{
		"--data-root", filepath.Join(r.dir, "data"), "--exec-root", filepath.Join(r.dir, "exec"),
		"--pidfile", filepath.Join(r.dir, "docker.pid"), "-H", "unix://" + socket,
		"--experimental", "--ip6tables", "--ipv6", "--fixed-cidr-v6", "fd99::/64",
	}, options...)...)
}

func startDockerIptables(r *room, kind string) []cell {
	r.iptables("/usr/sbin/xtables-" + kind + "-multi")
	// It closes the way only when it is who switches forwarding on.
	run := func() (*exec.Cmd, func()) {
		r.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
		return runDocker(r)
	}
	cmd, stop := run()
	// This release closes that of IPv4 only, later ones both.
	r.run("ip6tables", "-P", "FORWARD", "DROP")
	return []cell{
		{"reload", func() { _ = cmd.Process.Signal(syscall.SIGHUP) }, false},
		{"flush", func() { r.run("iptables", "-F"); r.run("ip6tables", "-F") }, true},
		{"nft flush ruleset", func() { r.run("nft", "flush", "ruleset") }, false},
		{"restart", func() { stop(); _, _ = run() }, false},
	}
}

// startDockerNftables starts one whose drops are for its own bridges: where it has
// nftables it leaves what is forwarded besides to others.
func startDockerNftables(r *room) []cell {
	cmd, stop := runDocker(r, "--firewall-backend=nftables")
	if rules := r.host.Run("nft", "list", "table", "ip", "docker-bridges"); !strings.Contains(rules, "UNPUBLISHED PORT DROP") {
		r.t.Errorf("Docker does not filter:\n%s", rules)
	}
	return []cell{
		{"reload", func() { _ = cmd.Process.Signal(syscall.SIGHUP) }, false},
		{"flush", func() { r.run("nft", "flush", "table", "ip", "docker-bridges") }, false},
		{"nft flush ruleset", func() { r.run("nft", "flush", "ruleset") }, false},
		{"restart", func() { stop(); _, _ = runDocker(r, "--firewall-backend=nftables") }, false},
	}
}

// answers asks an engine, which listens before it is ready.
func answers(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, "GET /_ping HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, len("HTTP/1.0 200")))
	return err
}

func startUFW(r *room) []cell {
	r.run("ufw", "--force", "enable")
	return []cell{
		{"reload", func() { r.run("ufw", "reload") }, false},
		{"flush", func() { r.run("iptables", "-F"); r.run("ip6tables", "-F") }, true},
		{"nft flush ruleset", func() { r.run("nft", "flush", "ruleset") }, false},
		{"restart", func() { r.run("/lib/ufw/ufw-init", "restart") }, true},
	}
}

func startFirewalld(r *room) []cell {
	r.daemon(func() error {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/dbus/system_bus_socket", r.pid))
		return err
	},
		"dbus-daemon", "--system", "--nofork", "--nopidfile")
	run := func() func() {
		_, stop := r.daemon(func() error {
			cmd := r.command("firewall-cmd", "--state")
			return errors.Join(r.host.Start(cmd), cmd.Wait())
		}, "firewalld", "--nofork", "--nopid")
		return stop
	}
	stop := run()
	return []cell{
		{"reload", func() { r.run("firewall-cmd", "--reload") }, true},
		{"flush", func() { r.run("nft", "flush", "table", "inet", "firewalld") }, false},
		{"nft flush ruleset", func() { r.run("nft", "flush", "ruleset") }, false},
		{"restart", func() { stop(); run() }, true},
	}
}

func startNftables(r *room) []cell {
	conf := filepath.Join(r.dir, "nftables.conf")
	if err := os.WriteFile(conf, []byte("flush ruleset\n"+nativeFirewall+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	load := func() { r.run("nft", "-f", conf) }
	load()
	return []cell{
		{"reload", load, true},
		{"flush", func() { r.run("nft", "flush", "table", "inet", "firewall") }, true},
		{"nft flush ruleset", func() { r.run("nft", "flush", "ruleset") }, false},
		{"restart", func() { r.run("nft", "flush", "ruleset"); load() }, true},
	}
}

// healLimit is what a way may take to be open again.
const healLimit = time.Second

// TestNetnsFirewalls does to each firewall what happens to them, and wants all
// ways of attackers and services open again at once. It prints how long it took.
func TestNetnsFirewalls(t *testing.T) {
	t.Parallel()
	var (
		mu    sync.Mutex
		lines []string
		worst time.Duration
	)
	t.Run("all", func(t *testing.T) {
		for title, fw := range firewalls() {
			t.Run(title, func(t *testing.T) {
				t.Parallel()
				for name, took := range survive(t, fw) {
					mu.Lock()
					lines = append(lines, fmt.Sprintf("%-26s %-18s %4d ms", title, name, took.Milliseconds()))
					worst = max(worst, took)
					mu.Unlock()
				}
			})
		}
	})
	slices.Sort(lines)
	t.Logf("open again after:\n%s\nslowest: %d ms", strings.Join(lines, "\n"), worst.Milliseconds())
}

// survive returns how long each cell took to heal.
func survive(t *testing.T, fw firewall) map[string]time.Duration {
	nettest.Need(t, append(fw.needs, "nft", "iptables-legacy-save")...)
	l := newLab(t, helperapi.EgressDeny)
	room := newRoom(t, l.host)
	took := map[string]time.Duration{}
	stop := l.keep(t)
	l.await(t, "before", map[string]time.Duration{})
	cells := fw.start(room)
	l.await(t, "start", took)
	stop()
	before := l.withoutPassage(t)
	l.check(t, "with the firewall only", !fw.forward, !fw.input, false)
	firewalls := l.ensure(t, helperapi.EgressDeny)
	if fw.kind == "" && len(firewalls) > 0 {
		t.Errorf("found %+v, where nothing is closed", firewalls)
	}
	for _, found := range firewalls {
		if found.Kind != fw.kind || found.Problem != "" || !fw.forward && strings.Contains(strings.ToLower(found.Passage), "dnat") {
			t.Errorf("found %+v", found)
		}
	}
	l.check(t, "with the passage", true, true, false)
	if diff := cmp.Diff(before, l.withoutPassage(t)); diff != "" {
		t.Errorf("after remove (-before +after):\n%s", diff)
	}
	stop = l.keep(t)
	for _, c := range cells {
		heals, _ := l.passage.Heals()
		c.do()
		l.await(t, c.name, took)
		if c.heals {
			err := waitFor(healLimit, func() error {
				if now, _ := l.passage.Heals(); now == heals {
					return errors.New("no heal was counted")
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	l.check(t, "at the end", true, true, false)
	stop()
	l.cleanUp(t, fw)
	return took
}

// withoutPassage returns what others have once our rules are removed.
func (l *lab) withoutPassage(t *testing.T) string {
	t.Helper()
	if err := l.passage.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := l.everything(t)
	if strings.Contains(text, name) {
		t.Errorf("rules are left:\n%s", text)
	}
	return text
}

// keep runs what keeps the ways open, as the helper does.
func (l *lab) keep(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ensure := func(ctx context.Context) {
		if _, err := l.passage.Ensure(ctx, config(helperapi.EgressDeny)); err != nil && ctx.Err() == nil {
			t.Logf("ensure: %v", err)
		}
	}
	ensure(ctx)
	var keepers sync.WaitGroup
	for _, watch := range []func(context.Context, func(context.Context)) error{l.table.Watch, l.passage.Watch} {
		keepers.Go(func() {
			if err := watch(ctx, ensure); err != nil {
				t.Errorf("watch: %v", err)
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); keepers.Wait() })
	t.Cleanup(stop)
	return stop
}

// await measures until all ways are open.
func (l *lab) await(t *testing.T, name string, took map[string]time.Duration) {
	t.Helper()
	begin := time.Now()
	err := waitFor(5*time.Second, l.closed)
	took[name] = time.Since(begin)
	if err != nil || took[name] > healLimit {
		t.Errorf("%s: after %v: %v", name, took[name], err)
	}
}

// closed names the ways that are not open. It does not wait for packets that
// are sent again.
func (l *lab) closed() error {
	const patience = 100 * time.Millisecond
	var (
		askers sync.WaitGroup
		errs   [4]error
	)
	for i, c := range []struct {
		from         *nettest.Host
		addr, answer string
	}{
		{l.attacker, "192.0.2.1:80", "service"},
		{l.attacker, "[2001:db8:a::1]:80", "service"},
		{l.service, "10.10.10.1:5556", "collector"},
		{l.service, "[fd12::1]:5556", "collector"},
	} {
		askers.Go(func() {
			if got := askFor(c.from, c.addr, patience); got != c.answer {
				errs[i] = fmt.Errorf("%s gets %q", c.addr, got)
			}
		})
	}
	askers.Wait()
	return errors.Join(errs[:]...)
}

// everything is what the three programs show of others, without counters.
func (l *lab) everything(t *testing.T) string {
	t.Helper()
	text := l.others()
	for _, program := range []string{"iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"} {
		out, err := l.host.Try(program)
		if err != nil {
			t.Errorf("%s: %v: %s", program, err, out)
		}
		text += regexp.MustCompile(`(?m)^#.*\n|\[\d+:\d+\]`).ReplaceAllString(out, "")
	}
	return text
}

// cleanUp removes the rules as another container does, and wants nothing else
// to be gone.
func (l *lab) cleanUp(t *testing.T, fw firewall) {
	t.Helper()
	want := ourLine.ReplaceAllString(l.everything(t), "")
	removed, err := Cleanup(t.Context(), nft.Config{NetNS: l.host.Fd()}, func(table string) bool { return table == name })
	if err != nil || (len(removed) > 0) != (fw.forward || fw.input) {
		t.Errorf("cleanup removed %q: %v", removed, err)
	}
	if diff := cmp.Diff(want, l.everything(t)); diff != "" {
		t.Errorf("cleanup (-want +got):\n%s", diff)
	}
}

// ourLine is one with our bridge or networks, which nobody else knows.
var ourLine = regexp.MustCompile(`(?m)^.*("svc0"|-i svc0 |10\.10\.10\.|fd12::).*\n`)
