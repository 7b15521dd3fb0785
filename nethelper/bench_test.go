package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
	"honeysens.org/dockersensor/shared/unixsock"
)

var testID = strings.Repeat("a1b2c3d4", 8)

// bench is a host with an attacker next to it, and the helper as a program.
type bench struct {
	t              testing.TB
	host, attacker *nettest.Host
	dir            string
	helper         *exec.Cmd
	// tracer is put before the helper's command line.
	tracer []string
	stderr *output
}

// output is what a program writes, to be read while it still does.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write never fails.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String returns what was written so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func newBench(t testing.TB) *bench {
	t.Helper()
	host, attacker := hosttest.NewHosts(t)
	b := &bench{t: t, host: host, attacker: attacker, dir: t.TempDir()}
	t.Cleanup(func() {
		b.kill()
		if t.Failed() && b.stderr != nil {
			t.Logf("helper:\n%s", b.stderr)
		}
	})
	return b
}

func program(t testing.TB) string {
	t.Helper()
	return filepath.Join(hosttest.Build(t, "helper", "honeysens.org/dockersensor/nethelper"), "nethelper")
}

// start starts the helper and waits until it serves.
func (b *bench) start(flags ...string) {
	b.t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer read.Close()
	args := append([]string{
		"serve", "--socket", b.socket(), "--allow-uid", fmt.Sprint(os.Getuid()), "--iface", "eth0", "--sensor-id", testID,
		"--cni-bin-dir", hosttest.Plugins(b.t), "--state-dir", filepath.Join(b.dir, "state"), "--notification-fd", "3",
	}, flags...)
	command := slices.Concat(b.tracer, []string{program(b.t)}, args)
	b.helper = exec.Command(command[0], command[1:]...)
	b.stderr = &output{}
	b.helper.Stderr, b.helper.ExtraFiles = b.stderr, []*os.File{write}
	if err := b.host.Start(b.helper); err != nil {
		b.t.Fatal(err)
	}
	write.Close()
	// A tracer holds the other end open for longer.
	line := make([]byte, 1)
	if _, err := io.ReadFull(read, line); err != nil || string(line) != "\n" {
		b.t.Fatalf("readiness %q, %v\n%s", line, err, b.stderr)
	}
}

func (b *bench) socket() string { return filepath.Join(b.dir, "helper.sock") }

// end sends a signal and waits for the helper's end.
func (b *bench) end(signal syscall.Signal) error {
	b.t.Helper()
	if err := b.helper.Process.Signal(signal); err != nil {
		b.t.Fatal(err)
	}
	err := b.helper.Wait()
	b.helper = nil
	return err
}

func (b *bench) kill() {
	if b.helper != nil {
		_ = b.helper.Process.Kill()
		_ = b.helper.Wait()
		b.helper = nil
	}
}

func (b *bench) call(method, path string, body, into any) error {
	b.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, "http://helper"+path, bytes.NewReader(raw))
	if err != nil {
		b.t.Fatal(err)
	}
	client := unixsock.Client(b.socket(), 30*time.Second)
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		refused := &helperapi.Error{}
		if err := json.NewDecoder(resp.Body).Decode(refused); err != nil {
			return err
		}
		return refused
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func (b *bench) put(want helperapi.Network) helperapi.Observed {
	b.t.Helper()
	var seen helperapi.Observed
	if err := b.call(http.MethodPut, helperapi.PathNetwork, want, &seen); err != nil {
		b.t.Fatalf("PUT: %v\n%s", err, b.stderr)
	}
	return seen
}

func (b *bench) get() helperapi.Observed {
	b.t.Helper()
	var seen helperapi.Observed
	if err := b.call(http.MethodGet, helperapi.PathNetwork, nil, &seen); err != nil {
		b.t.Fatalf("GET: %v\n%s", err, b.stderr)
	}
	return seen
}

// wanted leads 22/tcp to port 2222 of the first container and everything else
// to the second.
func wanted(containers ...*hosttest.Container) helperapi.Network {
	n := helperapi.Network{
		Interface: helperapi.Interface{Name: "eth0", Mode: helperapi.ModeNone},
		Bridge:    helperapi.Bridge{V4: netip.MustParsePrefix("10.10.10.0/24"), CollectorPort: 5556},
		Egress:    helperapi.EgressDeny, Services: []helperapi.Service{},
	}
	for i, c := range containers {
		service := helperapi.Service{ID: fmt.Sprint(i + 1), Sandbox: c.Sandbox, CatchAll: i == 1}
		if i == 0 {
			service.Ports = []helperapi.Assignment{{Port: helperapi.Port{Protocol: helperapi.TCP, Number: 22}, To: 2222}}
		}
		n.Services = append(n.Services, service)
	}
	return n
}

// honeypot tells everyone who connects its name and whom it sees.
func honeypot(t testing.TB, c *hosttest.Container, name string, port int) {
	t.Helper()
	listen(t, c, port, func(conn net.Conn) {
		from, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		fmt.Fprintf(conn, "%s sees %s", name, from)
	})
}

func listen(t testing.TB, c *hosttest.Container, port int, answer func(net.Conn)) {
	t.Helper()
	var listener net.Listener
	err := c.Do(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, listener, answer)
}

// serve answers on a listener until the test ends.
func serve(t testing.TB, listener net.Listener, answer func(net.Conn)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			answer(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
}

// attack connects from the attacker and returns what the other side says.
func (b *bench) attack(address string) (string, error) {
	return b.attackWithin(address, 2*time.Second)
}

func (b *bench) attackWithin(address string, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), limit)
	defer cancel()
	var conn net.Conn
	err := b.attacker.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	said, err := io.ReadAll(conn)
	return string(said), err
}

func (b *bench) wantAttack(address, want string) {
	b.t.Helper()
	if got, err := b.attack(address); err != nil || got != want {
		b.t.Errorf("attack at %s: %q, %v; want %q", address, got, err, want)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within 5 seconds: %s", what)
		case <-tick.C:
		}
	}
}

func (b *bench) twoHoneypots() (*hosttest.Container, *hosttest.Container) {
	b.t.Helper()
	ssh, recon := hosttest.NewContainer(b.t, "ssh"), hosttest.NewContainer(b.t, "recon")
	honeypot(b.t, ssh, "ssh", 2222)
	honeypot(b.t, recon, "recon", 9999)
	return ssh, recon
}

func (b *bench) wantAttacksWork() {
	b.t.Helper()
	b.wantAttack("192.0.2.1:22", "ssh sees 192.0.2.2")
	b.wantAttack("[2001:db8::1]:22", "ssh sees 2001:db8::2")
	b.wantAttack("192.0.2.1:9999", "recon sees 192.0.2.2")
	b.wantAttack("[2001:db8::1]:9999", "recon sees 2001:db8::2")
}

func (b *bench) wantUnchanged(before string) {
	b.t.Helper()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(b.host), "\n")); diff != "" {
		b.t.Errorf("the host differs:\n%s", diff)
	}
}
