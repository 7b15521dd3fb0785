package honeypot

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"honeysens.org/dockersensor/shared/nettest"
	"honeysens.org/dockersensor/shared/zmtp"
	"honeysens.org/dockersensor/shared/zmtp/zmtptest"
)

// TestNetnsReport wants one request for each connection, on a socket of its own,
// with the misspelt key that it is there for.
func TestNetnsReport(t *testing.T) {
	nettest.Need(t, "ip")
	zmtptest.NeedPython(t)
	host := nettest.NewHost(t, "honeypot")
	var collector net.Listener
	err := host.Do(func() (err error) {
		collector, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = collector.Close() }()
	_, port, err := net.SplitHostPort(collector.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	start(t, host, port)

	for _, target := range []string{"127.0.0.1:2222", "[::1]:2222"} {
		attack(t, host, target)
		got := receive(t, collector)
		want, _, _ := net.SplitHostPort(target)
		if got["source"] != want || got["service"] != 1.0 || got["summary"] != "SSH" {
			t.Errorf("got %v", got)
		}
		details, ok := got["details"].([]any)
		if !ok || len(details) != 3 {
			t.Fatalf("details %v", got["details"])
		}
		if said, ok := details[1].(map[string]any); !ok || said["data"] != "SSH-2.0-nmap" {
			t.Errorf("detail %v", details[1])
		}
		if last, ok := details[2].(map[string]any); !ok || last["data:"] == nil || last["data"] != nil {
			t.Errorf("last detail %v, want the key data:", details[2])
		}
	}
}

// start runs the honeypot until the test ends, and waits until it listens.
func start(t *testing.T, host *nettest.Host, port string) {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", "-u", "honeypot.py")
	cmd.Env = []string{"COLLECTOR_HOST=127.0.0.1", "COLLECTOR_PORT=" + port}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := host.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("honeypot ended with %v\n%s", err, complaints.String())
		}
	})
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "listening") {
		t.Fatalf("honeypot said %q, %v\n%s", line, err, complaints.String())
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
}

// attack connects, reads the banner and says something.
func attack(t *testing.T, host *nettest.Host, target string) {
	t.Helper()
	var conn net.Conn
	err := host.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", target, 5*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if banner, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(banner, "SSH-2.0-OpenSSH") {
		t.Errorf("banner %q, %v", banner, err)
	}
	if _, err := io.WriteString(conn, "SSH-2.0-nmap\r\n"); err != nil {
		t.Error(err)
	}
}

// receive takes one request and answers it.
func receive(t *testing.T, collector net.Listener) map[string]any {
	t.Helper()
	_ = collector.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second))
	raw, err := collector.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	conn, err := zmtp.NewConn(raw, zmtp.Config{Type: zmtp.TypeREP, Peers: []string{zmtp.TypeREQ}})
	if err != nil {
		t.Fatal(err)
	}
	parts, err := conn.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Send(nil, []byte(`{"status": "ok"}`)); err != nil {
		t.Error(err)
	}
	var got map[string]any
	if err := json.Unmarshal(parts[len(parts)-1], &got); err != nil {
		t.Fatal(err)
	}
	return got
}
