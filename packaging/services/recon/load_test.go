package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/event"
	"honeysens.org/dockersensor/shared/nettest"
)

// What recon may take, in KiB: with everything that is thrown at it, and with all
// the connections that it holds besides.
const (
	maxMemory     = 32 << 10
	maxMemoryOpen = 48 << 10
)

// memory returns the most that recon has had in memory so far, in KiB.
func (l *lab) memory() int {
	l.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.recon.Process.Pid))
	if err != nil {
		l.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			size, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				l.t.Fatal(err)
			}
			return size
		}
	}
	l.t.Fatal("no VmHWM")
	return 0
}

// newProgramLab runs the program as it is in the image.
func newProgramLab(t *testing.T) *lab {
	t.Helper()
	path := t.TempDir() + "/recon"
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 10<<20 {
		t.Errorf("the program, which is all of the image, has %d bytes, %v: want less than 10 MB", info.Size(), err)
	}
	t.Logf("image: %.1f MB", float64(info.Size())/1e6)
	return newLabOf(t, path)
}

func (l *lab) wantMemory(most int) {
	l.t.Helper()
	used := l.memory()
	l.t.Logf("memory at most: %.1f MB", float64(used)/1024)
	if used > most {
		l.t.Errorf("recon took %d KiB, want %d at most", used, most)
	}
}

// TestNetnsManyConnections holds 5,000 connections at a time, from 100 sources:
// all of them are answered, and each source makes one event.
func TestNetnsManyConnections(t *testing.T) {
	nettest.Need(t, "nft")
	l := newProgramLab(t)
	const sources, each = 100, 50
	l.sandbox.Run("sysctl", "-qw", "net.ipv4.tcp_max_syn_backlog=8192")
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	failed := 0
	for n := range sources {
		source := fmt.Sprintf("198.51.100.%d", 100+n)
		l.attacker.Run("ip", "addr", "add", source+"/32", "dev", "gw0")
		wg.Go(func() {
			for port := range each {
				conn, err := l.try("tcp", source, net.JoinHostPort(sandbox4, fmt.Sprint(1000+port)))
				mu.Lock()
				if err == nil {
					open = append(open, conn)
				} else {
					failed++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failed > 0 {
		t.Errorf("%d of %d connections failed", failed, sources*each)
	}
	closed := 0
	for _, conn := range open {
		_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			closed++
		}
		_ = conn.Close()
	}
	t.Logf("%d connections, %d of them closed by recon meanwhile", len(open), closed)
	seen := map[string]int{}
	for range sources {
		e := l.next()
		seen[e.Source]++
		if e.Summary != event.SummaryScan {
			t.Errorf("%s is no scan", brief(e))
		}
	}
	if len(seen) != sources {
		t.Errorf("%d sources were reported, want %d", len(seen), sources)
	}
	l.wantMemory(maxMemoryOpen)
}

// TestNetnsSpoofedFlood sends SYN and UDP from more sources than are kept, as fast
// as it goes. Recon's memory is bounded, and it works again afterwards.
func TestNetnsSpoofedFlood(t *testing.T) {
	nettest.Need(t, "nft")
	l := newProgramLab(t)
	var fd int
	err := l.attacker.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const packets = 300_000
	to := unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(sandbox4).To4())}
	for n := range uint32(packets) {
		_ = unix.Sendto(fd, spoofed(n), 0, &to)
	}
	l.waitLog("more than fits")
	l.wantMemory(maxMemory)
	// What was kept of the flood is reported; then there is room again.
	l.quiet()
	_ = l.say("udp", attacker6, net.JoinHostPort(sandbox6, "161"), "after").Close()
	for {
		if e := l.next(); e.Source == attacker6 {
			break
		}
	}
	l.wantMemory(maxMemory)
}

// spoofed is a packet from one of very many sources: SYN, or UDP with as much as
// is kept. Each source sends some.
func spoofed(n uint32) []byte {
	size := 20 + 20
	if n%2 == 1 {
		size = 20 + 8 + 400
	}
	raw := make([]byte, size)
	raw[0], raw[8], raw[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(raw[2:], uint16(size))
	binary.BigEndian.PutUint32(raw[12:], 11<<24|n/16%20_000)
	copy(raw[16:], net.ParseIP(sandbox4).To4())
	segment := raw[20:]
	binary.BigEndian.PutUint16(segment, uint16(1024+n%60_000))
	binary.BigEndian.PutUint16(segment[2:], uint16(1+n%16*7))
	if n%2 == 1 {
		raw[9] = unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(segment[4:], uint16(size-20))
		return raw
	}
	segment[12], segment[13] = 5<<4, 0x02
	return raw
}

// TestNetnsFragments wants one probe of a datagram in several fragments, by both
// protocols, with its beginning.
func TestNetnsFragments(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	l := newLab(t)
	for source, target := range map[string]string{attacker4: sandbox4, attacker6: sandbox6} {
		_ = l.say("udp", source, net.JoinHostPort(target, "500"), strings.Repeat("x", 4000)).Close()
	}
	for range 2 {
		e := l.next()
		if len(e.Packets) != 1 || e.Packets[0].Port != 500 || e.Packets[0].Payload == nil || len(*e.Packets[0].Payload) < 200 {
			t.Errorf("got %s", brief(e))
		}
	}
}

// TestNetnsPingIsTheHosts: ICMP is answered by the kernel, and is no probe.
func TestNetnsPingIsTheHosts(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	l := newLab(t)
	for source, target := range map[string]string{attacker4: sandbox4, attacker6: sandbox6} {
		l.wantEcho(source, target)
	}
	_ = l.say("udp", attacker4, net.JoinHostPort(sandbox4, "161"), "x").Close()
	if e := l.next(); len(e.Packets) != 1 || e.Packets[0].Protocol != event.ProtocolUDP {
		t.Errorf("got %s", brief(e))
	}
}

// wantEcho sends an echo request and wants the reply.
func (l *lab) wantEcho(source, target string) {
	l.t.Helper()
	network, request := "ip4:icmp", []byte{8, 0, 0xf7, 0xfd, 0, 1, 0, 1}
	if strings.Contains(target, ":") {
		network, request = "ip6:ipv6-icmp", []byte{128, 0, 0, 0, 0, 1, 0, 1}
	}
	var conn *net.IPConn
	err := l.attacker.Do(func() (err error) {
		conn, err = net.DialIP(network, &net.IPAddr{IP: net.ParseIP(source)}, &net.IPAddr{IP: net.ParseIP(target)})
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write(request); err != nil {
		l.t.Fatal(err)
	}
	for buffer := make([]byte, 100); ; {
		n, _, err := conn.ReadFrom(buffer)
		if err != nil {
			l.t.Errorf("no echo of %s: %v", target, err)
			return
		}
		if n > 0 && (buffer[0] == 0 || buffer[0] == 129) {
			return
		}
	}
}

// try is dial without an end of the test.
func (l *lab) try(network, source, address string) (net.Conn, error) {
	var conn net.Conn
	err := l.attacker.Do(func() (err error) {
		dialer := net.Dialer{Timeout: 20 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
		conn, err = dialer.DialContext(l.t.Context(), network, address)
		return err
	})
	return conn, err
}

// quiet reads events until none comes for some time.
func (l *lab) quiet() {
	for {
		select {
		case <-l.events:
		case <-time.After(10 * time.Second):
			return
		}
	}
}
