package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
)

// hostAnswer is what a program of the sensor's host says.
const hostAnswer = "this is the host\n"

// listen starts programs on the sensor's host that answer on a port by TCP and
// UDP, on all addresses of both families, and ends them with the test.
func listen(t *testing.T, s *scenario.Scenario, port int) {
	t.Helper()
	address := fmt.Sprintf("[::]:%d", port)
	var stream net.Listener
	var packets net.PacketConn
	labtest.Must(t, s.On(host.Sensor, func() (err error) {
		if stream, err = net.Listen("tcp", address); err == nil {
			packets, err = net.ListenPacket("udp", address)
		}
		return err
	}))
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			conn, err := stream.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, hostAnswer)
			_ = conn.Close()
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for buf := make([]byte, 1500); ; {
			_, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo([]byte(hostAnswer), from)
		}
	}()
	t.Cleanup(func() {
		_ = errors.Join(stream.Close(), packets.Close())
		<-done
		<-done
	})
}

// answer returns what an attacker hears on a port after saying something.
func answer(t *testing.T, s *scenario.Scenario, network, source, target string, port int) string {
	t.Helper()
	heard := ""
	err := s.Dial(t.Context(), network, source, target, port, func(conn net.Conn) error {
		if _, err := io.WriteString(conn, "hello\r\n"); err != nil {
			return err
		}
		buf := make([]byte, 1500)
		n, err := conn.Read(buf)
		heard = string(buf[:n])
		return err
	})
	if err != nil && !errors.Is(err, io.EOF) {
		return "nothing: " + err.Error()
	}
	return heard
}

// hostAnswers wants the host's own program to answer on a port, whatever is
// assigned, by TCP and UDP, IPv4 and IPv6.
func hostAnswers(t *testing.T, s *scenario.Scenario, port int) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		for source, target := range map[string]string{host.AttackerV4: s.TargetV4, host.AttackerV6: s.TargetV6} {
			if got := answer(t, s, network, source, target, port); got != hostAnswer {
				t.Errorf("port %d/%s at %s answers %q, want the host's answer", port, network, target, got)
			}
		}
	}
}

// honeypotAnswers wants the honeypot to answer by TCP on its assigned port, once
// its program has started.
func honeypotAnswers(t *testing.T, s *scenario.Scenario, port int) {
	t.Helper()
	for source, target := range map[string]string{host.AttackerV4: s.TargetV4, host.AttackerV6: s.TargetV6} {
		eventually(t, "honeypot's banner", func() error {
			if got := answer(t, s, "tcp", source, target, port); !strings.HasPrefix(got, "SSH-") {
				return fmt.Errorf("port %d/tcp at %s answers %q", port, target, got)
			}
			return nil
		})
	}
}
