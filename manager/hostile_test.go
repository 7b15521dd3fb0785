package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"honeysens.org/dockersensor/shared/zmtp"
	"honeysens.org/dockersensor/shared/zmtp/zmtptest"
)

// libzmqClient reports events as the plug-ins of honeypots do, one for each line
// that it is given, and prints the reply's status.
const libzmqClient = `
import sys, zmq
ctx = zmq.Context()
s = ctx.socket(zmq.REQ)
s.connect("tcp://" + sys.argv[1])
for line in sys.stdin:
    s.send_json({"timestamp": 1, "service": 1, "source": "192.0.2.1", "summary": line.strip(), "details": [], "packets": []})
    print(s.recv_json()["status"])
`

// hostile is what one address does to the collector, until ctx ends or it is
// done.
type hostile struct {
	name string
	// conns is how many connections do it at once.
	conns int
	do    func(ctx context.Context, conn net.Conn)
}

func sends(parts ...[]byte) func(context.Context, net.Conn) {
	return func(ctx context.Context, conn net.Conn) {
		_, _ = conn.Write(bytes.Join(parts, nil))
		waitForEnd(ctx, conn)
	}
}

// waitForEnd reads until either side ends the connection.
func waitForEnd(ctx context.Context, conn net.Conn) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_, _ = io.Copy(io.Discard, conn)
}

// floods repeats some bytes for as long as they are taken.
func floods(greeting, again []byte) func(context.Context, net.Conn) {
	return func(ctx context.Context, conn net.Conn) {
		defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		if _, err := conn.Write(greeting); err != nil {
			return
		}
		for ctx.Err() == nil {
			if _, err := conn.Write(again); err != nil {
				return
			}
		}
	}
}

// drips sends a byte now and then.
func drips(greeting []byte) func(context.Context, net.Conn) {
	return func(ctx context.Context, conn net.Conn) {
		_, _ = conn.Write(greeting)
		for ctx.Err() == nil {
			if _, err := conn.Write([]byte{'x'}); err != nil {
				return
			}
			pause(ctx, 50*time.Millisecond)
		}
	}
}

// frame is a message of one part behind an empty one.
func frame(body []byte) []byte {
	return append(announce(2, uint64(len(body))), body...)
}

func announce(flags byte, size uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{flags}, size)
}

func attacks() []hostile {
	greeting := make([]byte, 64)
	greeting[0], greeting[9], greeting[10] = 0xFF, 0x7F, 3
	copy(greeting[12:], "NULL")
	ready := func(socketType string) []byte {
		body := append([]byte("\x05READY\x0bSocket-Type\x00\x00\x00"), byte(len(socketType)))
		body = append(body, socketType...)
		return append([]byte{4, byte(len(body))}, body...)
	}
	hello := bytes.Join([][]byte{greeting, ready(zmtp.TypeREQ)}, nil)
	empty := []byte{1, 0}
	ping := append([]byte{4, 7}, "\x04PING\x00\x00"...)
	deep := frame(fmt.Appendf(nil, `{"service": 1, "source": "x", "details": %s%s}`, strings.Repeat("[", 400_000), strings.Repeat("]", 400_000)))
	wide := frame(fmt.Appendf(nil, `{"service": 1, "source": "x", "details": [%s1]}`, strings.Repeat("1,", 400_000)))
	return []hostile{
		{"frame of 2^62 bytes", 20, sends(hello, announce(2, 1<<62))},
		{"frame of 2^40 bytes", 20, sends(hello, announce(2, 1<<40))},
		{"frame of 2^62 bytes before the handshake", 20, sends(greeting, announce(6, 1<<62))},
		{"half-open handshakes", 100, sends(greeting[:11])},
		{"slow loris", 100, drips(hello)},
		{"slow loris in the largest message", 100, drips(append(bytes.Clone(hello), announce(2, 1<<20)...))},
		{"connections", 5000, sends()},
		{"garbage", 20, sends(bytes.Repeat([]byte{0xA5, 0x5A, 0}, 100_000))},
		{"flood of PING", 8, floods(hello, bytes.Repeat(ping, 1000))},
		{"flood of deep JSON", 8, floods(hello, append(bytes.Clone(empty), deep...))},
		{"flood of wide JSON", 8, floods(hello, append(bytes.Clone(empty), wide...))},
		{"flood of empty parts", 8, floods(hello, bytes.Repeat([]byte{1, 0}, 1000))},
		{"wrong socket type", 20, sends(greeting, ready("PUB"))},
	}
}

// TestHostilePeers has one address do each of these to a manager, while a real
// libzmq client of another address is served and memory stays bounded.
func TestHostilePeers(t *testing.T) {
	zmtptest.NeedPython(t)
	r := newRig(t)
	r.start()
	client := zmtptest.Start(t, libzmqClient, r.collector)
	var told []string
	for _, attack := range attacks() {
		t.Run(attack.name, func(t *testing.T) {
			end := r.attack(t, attack)
			defer end()
			var slowest time.Duration
			for i := range 20 {
				summary := fmt.Sprintf("%s %d", attack.name, i)
				began := time.Now()
				client.Say(summary)
				if got := client.Line(); got != "ok" {
					t.Fatalf("reply %q", got)
				}
				slowest = max(slowest, time.Since(began))
				told = append(told, summary)
			}
			rss, own := memory(t, r.pid())
			t.Logf("20 events of another honeypot, the slowest in %s; %.1f MB, %.1f MB of them its own", slowest.Round(time.Millisecond/10), rss, own)
			if own > 100 {
				t.Errorf("%.1f MB", own)
			}
		})
	}
	r.wantStored(told)
}

// attack begins one, from an address of its own, and returns what ends it.
func (r *rig) attack(t *testing.T, attack hostile) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}}
	begun := make(chan struct{}, attack.conns)
	for range attack.conns {
		wg.Go(func() {
			conn, err := dialer.DialContext(ctx, "tcp", r.collector)
			begun <- struct{}{}
			if err != nil {
				return
			}
			defer conn.Close()
			attack.do(ctx, conn)
		})
	}
	for range attack.conns {
		<-begun
	}
	return func() {
		cancel()
		wg.Wait()
	}
}
