package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/services/recon/internal/tracker"
	"honeysens.org/dockersensor/shared/event"
	"honeysens.org/dockersensor/shared/nettest"
	"honeysens.org/dockersensor/shared/zmtp"
)

// asRecon makes the test binary the honeypot itself.
const asRecon = "RECON_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asRecon) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		// Not the usual six seconds of silence, so that the tests are quick.
		err := start(ctx, tracker.Config{Silence: time.Second})
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const (
	attacker4, attacker6 = "198.51.100.7", "2001:db8::7"
	sandbox4, sandbox6   = "10.10.10.2", "fd00:10::2"
)

// lab is an attacker, who is the gateway and the collector as well, and a
// sandbox with the honeypot in it.
type lab struct {
	t                 *testing.T
	attacker, sandbox *nettest.Host
	events            chan event.Event
	logs              chan string
	collector         net.Listener
	// program is what is run as the honeypot.
	program string
	recon   *exec.Cmd
}

func newLab(t *testing.T, env ...string) *lab {
	t.Helper()
	return newLabOf(t, os.Args[0], env...)
}

func newLabOf(t *testing.T, program string, env ...string) *lab {
	t.Helper()
	l := &lab{program: program,
		t: t, attacker: nettest.NewHost(t, "attacker"), sandbox: nettest.NewHost(t, "sandbox"),
		events: make(chan event.Event, 100), logs: make(chan string, 1000),
	}
	nettest.Connect(l.attacker, "gw0", []string{"10.10.10.1/24", "fd00:10::1/64", attacker4 + "/32", attacker6 + "/128"},
		l.sandbox, "eth0", []string{sandbox4 + "/24", sandbox6 + "/64"})
	l.sandbox.Run("ip", "route", "add", "default", "via", "10.10.10.1")
	l.sandbox.Run("ip", "-6", "route", "add", "default", "via", "fd00:10::1")
	l.collect()
	l.start(env)
	return l
}

// collect runs a collector on the gateway address.
func (l *lab) collect() {
	l.t.Helper()
	var listener net.Listener
	err := l.attacker.Do(func() (err error) {
		listener, err = net.Listen("tcp", "10.10.10.1:5556")
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.collector = listener
	l.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			go l.answer(raw)
		}
	}()
}

func (l *lab) answer(raw net.Conn) {
	defer func() { _ = raw.Close() }()
	conn, err := zmtp.NewConn(raw, zmtp.Config{Type: zmtp.TypeREP, Peers: []string{zmtp.TypeREQ}})
	if err != nil {
		return
	}
	parts, err := conn.Receive()
	if err != nil {
		return
	}
	var e event.Event
	if err := json.Unmarshal(parts[len(parts)-1], &e); err != nil {
		l.t.Errorf("not an event: %v", err)
		return
	}
	_ = conn.Send(nil, []byte(`{"status": "ok"}`))
	l.events <- e
}

// start starts the honeypot and waits until it is ready.
func (l *lab) start(env []string) {
	l.t.Helper()
	cmd := exec.Command(l.program)
	l.recon = cmd
	cmd.Env = append(os.Environ(), asRecon+"=1", "COLLECTOR_HOST=10.10.10.1", "COLLECTOR_PORT=5556")
	cmd.Env = append(cmd.Env, env...)
	logs, err := cmd.StderrPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.sandbox.Start(cmd); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			l.t.Errorf("recon ended with %v", err)
		}
		if rules := l.sandbox.Run("nft", "list", "ruleset"); rules != "" {
			l.t.Errorf("rules remain:\n%s", rules)
		}
	})
	go func() {
		defer close(l.logs)
		for lines := bufio.NewScanner(logs); lines.Scan(); {
			select {
			case l.logs <- lines.Text():
			default:
			}
		}
	}()
	l.waitLog(`"ready"`)
}

// waitLog waits until the honeypot logs something.
func (l *lab) waitLog(part string) {
	l.t.Helper()
	for timeout := time.After(20 * time.Second); ; {
		select {
		case line, ok := <-l.logs:
			if !ok {
				l.t.Fatalf("recon ended before it said %s", part)
			}
			if strings.Contains(line, part) {
				return
			}
			l.t.Logf("recon: %s", line)
		case <-timeout:
			l.t.Fatalf("recon did not say %s", part)
		}
	}
}

// dial makes a connection from the attacker's address.
func (l *lab) dial(network, source, address string) net.Conn {
	l.t.Helper()
	var conn net.Conn
	err := l.attacker.Do(func() (err error) {
		dialer := net.Dialer{Timeout: 5 * time.Second}
		switch network {
		case "tcp":
			dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
		default:
			dialer.LocalAddr = &net.UDPAddr{IP: net.ParseIP(source)}
		}
		conn, err = dialer.DialContext(l.t.Context(), network, address)
		return err
	})
	if err != nil {
		l.t.Fatalf("dial %s: %v", address, err)
	}
	return conn
}

func (l *lab) say(network, source, address, text string) net.Conn {
	l.t.Helper()
	conn := l.dial(network, source, address)
	if _, err := io.WriteString(conn, text); err != nil {
		l.t.Fatal(err)
	}
	return conn
}

func (l *lab) next() event.Event {
	l.t.Helper()
	select {
	case e := <-l.events:
		return e
	case <-time.After(20 * time.Second):
		l.t.Fatal("no event")
	}
	return event.Event{}
}

func brief(e event.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s:", e.Summary, e.Source)
	for _, p := range e.Packets {
		payload := "-"
		if p.Payload != nil {
			payload = *p.Payload
		}
		fmt.Fprintf(&b, " %d/%d %s %v", p.Protocol, p.Port, payload, p.Headers)
	}
	return b.String()
}

func TestNetnsConnections(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	l := newLab(t)
	for _, target := range []string{net.JoinHostPort(sandbox4, "8080"), net.JoinHostPort(sandbox4, "1")} {
		conn := l.say("tcp", attacker4, target, "hello")
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("the honeypot said %d bytes", n)
		}
		_ = conn.Close()
	}
	_ = l.say("udp", attacker4, net.JoinHostPort(sandbox4, "161"), "public").Close()
	_ = l.say("tcp", attacker6, net.JoinHostPort(sandbox6, "443"), "six").Close()
	_ = l.say("udp", attacker6, net.JoinHostPort(sandbox6, "53"), "dns").Close()

	syn := int(flagsSYN(t))
	want := map[string]bool{
		fmt.Sprintf("Einzelverbindung from 198.51.100.7: 1/8080 aGVsbG8= [map[flags:%d]] 1/1 aGVsbG8= [map[flags:%d]] 2/161 cHVibGlj []", syn, syn): true,
		fmt.Sprintf("Einzelverbindung from 2001:db8::7: 1/443 c2l4 [map[flags:%d]] 2/53 ZG5z []", syn):                                              true,
	}
	for range 2 {
		if got := brief(l.next()); !want[got] {
			t.Errorf("got %s", got)
		}
	}
}

// flagsSYN are the flags that this kernel opens connections with: SYN, and
// those of ECN where it is set to ask for that.
func flagsSYN(t *testing.T) uint8 {
	t.Helper()
	ecn, err := os.ReadFile("/proc/sys/net/ipv4/tcp_ecn")
	if err == nil && strings.TrimSpace(string(ecn)) == "1" {
		return 0xc2
	}
	return 0x02
}

func TestNetnsUDPIsSilent(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	l := newLab(t)
	conn := l.say("udp", attacker4, net.JoinHostPort(sandbox4, "9"), "x")
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("want silence, got %v", err)
	}
	l.next()
}

// TestNetnsScan wants every port open although nmap uses one source port for
// all of them, and one event for the whole scan.
func TestNetnsScan(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft", "nmap")
	for _, test := range []struct {
		name, source, target string
		args                 []string
	}{
		{"IPv4", attacker4, sandbox4, []string{"-sS", "-S", attacker4, "-e", "gw0"}},
		{"IPv6", attacker6, sandbox6, []string{"-6", "-sT"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			args := append(test.args, "-Pn", "-n", "-p", "1-200", "--open", "-oG", "-", test.target)
			out := l.attacker.Run("nmap", args...)
			if open := strings.Count(out, "/open/"); open != 200 {
				t.Errorf("%d of 200 ports are open:\n%s", open, out)
			}
			e := l.next()
			if e.Summary != event.SummaryScan || len(e.Packets) != 25 || e.Service != event.ServiceRecon {
				t.Errorf("got %s", brief(e))
			}
			_ = l.say("udp", attacker6, net.JoinHostPort(sandbox6, "161"), "x").Close()
			if e := l.next(); len(e.Packets) != 1 || e.Source != attacker6 {
				t.Errorf("the scan made a second event: %s", brief(e))
			}
		})
	}
}

// TestNetnsRaw wants what the sensor's own namespace needs: no rule, no answer,
// and no event about answers to what the host asked.
func TestNetnsRaw(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	l := newLab(t, "INTERFACE=eth0")
	if rules := l.sandbox.Run("nft", "list", "ruleset"); rules != "" {
		t.Errorf("rules were installed:\n%s", rules)
	}
	question := udpSocket(t, l.sandbox, sandbox4+":4000")
	answerer := udpSocket(t, l.attacker, "10.10.10.1:5300")
	other := udpSocket(t, l.attacker, attacker4+":5300")
	send(t, question, answerer.LocalAddr())
	send(t, question, other.LocalAddr())
	send(t, other, question.LocalAddr())
	send(t, other, &net.UDPAddr{IP: net.ParseIP(sandbox4), Port: 4001})
	if got, want := brief(l.next()), "Einzelverbindung from 198.51.100.7: 2/4001 eA== []"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func udpSocket(t *testing.T, host *nettest.Host, address string) net.PacketConn {
	t.Helper()
	var conn net.PacketConn
	err := host.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func send(t *testing.T, from net.PacketConn, to net.Addr) {
	t.Helper()
	if _, err := from.WriteTo([]byte("x"), to); err != nil {
		t.Fatal(err)
	}
}

// TestNetnsCollectorComesLate wants an event to wait for its collector.
func TestNetnsCollectorComesLate(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	l := newLab(t)
	_ = l.collector.Close()
	_ = l.say("udp", attacker6, net.JoinHostPort(sandbox6, "161"), "x").Close()
	l.waitLog("collector did not take an event")
	l.collect()
	if e := l.next(); e.Source != attacker6 {
		t.Errorf("got %s", brief(e))
	}
}
