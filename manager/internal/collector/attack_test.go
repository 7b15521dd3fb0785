package collector

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/shared/zmtp"
	"honeysens.org/dockersensor/shared/zmtp/zmtptest"
)

// TestAttacks wants the end of the connection, and others served as before.
func TestAttacks(t *testing.T) {
	greeting := make([]byte, 64)
	greeting[0], greeting[9], greeting[10] = 0xFF, 0x7F, 3
	copy(greeting[12:], "NULL")
	ready := append([]byte{4, 26, 5}, "READY\x0bSocket-Type\x00\x00\x00\x03REQ"...)
	announce := func(flags byte, size uint64) []byte {
		return binary.BigEndian.AppendUint64([]byte{flags}, size)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	tests := []struct {
		name string
		send []byte
	}{
		{"nothing at all", nil},
		{"half a greeting", greeting[:20]},
		{"greeting only", greeting},
		{"garbage", bytes.Repeat([]byte{0xAA}, 1000)},
		{"web browser", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")},
		{"metadata of 2^62 bytes", join(greeting, announce(6, 1<<62))},
		{"metadata of 2^40 bytes", join(greeting, announce(6, 1<<40))},
		{"metadata of a gigabyte that comes", join(greeting, announce(6, 1<<30), make([]byte, 1<<20))},
		{"message of 2^62 bytes", join(greeting, ready, announce(2, 1<<62))},
		{"message of 2^40 bytes", join(greeting, ready, announce(2, 1<<40))},
		{"message that does not come", join(greeting, ready, announce(2, 1000))},
		{"endless parts", join(greeting, ready, bytes.Repeat([]byte{1, 0}, 100_000))},
	}
	cfg := Config{Handshake: 200 * time.Millisecond, Message: 200 * time.Millisecond, MaxMessage: 10_000}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := start(t, cfg, &sink{})
			raw := dial(t, "127.0.0.6", f.addr)
			if _, err := raw.Write(tt.send); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("write: %v", err)
			}
			if _, err := io.Copy(io.Discard, raw); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the connection stays")
			}
			conn, _ := open(t, "127.0.0.7", f.addr, zmtp.TypeREQ)
			if got := ask(t, conn, nil, body("a")); got[1] != replyOK {
				t.Errorf("reply %q", got)
			}
			if stats := f.Stats(); stats.Broken != 1 {
				t.Errorf("stats %+v", stats)
			}
		})
	}
}

// TestDripping sends a message byte by byte, never silent for long.
func TestDripping(t *testing.T) {
	f := start(t, Config{Message: 100 * time.Millisecond}, &sink{})
	conn, raw := open(t, "127.0.0.6", f.addr, zmtp.TypeREQ)
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	if _, err := raw.Write([]byte{0, 255}); err != nil {
		t.Fatal(err)
	}
	for range tick.C {
		if _, err := raw.Write([]byte{'x'}); err != nil {
			break
		}
		if time.Since(began) > limit/2 {
			t.Fatal("the connection stays")
		}
	}
	if err := conn.Begin(); err == nil {
		t.Error("an answer to half a message")
	}
}

// TestHalfOpenHandshakes uses up what one address may have.
func TestHalfOpenHandshakes(t *testing.T) {
	f := start(t, Config{MaxConnsPerSource: 4}, &sink{})
	for range 30 {
		dial(t, "127.0.0.6", f.addr)
	}
	conn, _ := open(t, "127.0.0.7", f.addr, zmtp.TypeREQ)
	if got := ask(t, conn, nil, body("a")); got[1] != replyOK {
		t.Errorf("reply %q", got)
	}
	if stats := f.Stats(); stats.Refused != 26 || stats.Connections != 5 {
		t.Errorf("stats %+v", stats)
	}
}

func TestLimitOfAllConnections(t *testing.T) {
	f := start(t, Config{MaxConns: 2}, &sink{})
	open(t, "127.0.0.6", f.addr, zmtp.TypeREQ)
	open(t, "127.0.0.7", f.addr, zmtp.TypeREQ)
	if _, err := io.Copy(io.Discard, dial(t, "127.0.0.8", f.addr)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the third connection stays")
	}
}

// TestIdleConnectionMakesRoom is for plug-ins that never close a socket.
func TestIdleConnectionMakesRoom(t *testing.T) {
	f := start(t, Config{MaxConnsPerSource: 1}, &sink{})
	leaked, _ := open(t, "127.0.0.7", f.addr, zmtp.TypeREQ)
	ask(t, leaked, nil, body("a"))
	deadline := time.Now().Add(limit)
	for {
		raw := dial(t, "127.0.0.7", f.addr)
		conn, err := zmtp.NewConn(raw, zmtp.Config{Type: zmtp.TypeREQ, Peers: []string{zmtp.TypeREP}})
		if err == nil {
			ask(t, conn, nil, body("b"))
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no room: %v", err)
		}
	}
	if err := leaked.Begin(); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %v, want its end", err)
	}
	if stats := f.Stats(); stats.Connections != 1 {
		t.Errorf("stats %+v", stats)
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	f := start(t, Config{Idle: 50 * time.Millisecond}, &sink{})
	conn, _ := open(t, "127.0.0.7", f.addr, zmtp.TypeREQ)
	ask(t, conn, nil, body("a"))
	if err := conn.Begin(); !errors.Is(err, io.EOF) {
		t.Errorf("error %v, want the end", err)
	}
	if stats := f.Stats(); stats.Broken != 0 {
		t.Errorf("stats %+v", stats)
	}
}

func TestServeTellsOfALostListener(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	if err := New(Config{}, &sink{}, homes, zaptest.NewLogger(t)).Serve(t.Context(), listener); err == nil {
		t.Error("no error")
	}
}

// pyzmqClient does what the plug-ins of honeypots do.
const pyzmqClient = `
import sys, zmq
addr, kind, keep, count = sys.argv[1], sys.argv[2], sys.argv[3] == "keep", int(sys.argv[4])
ctx = zmq.Context()
def new():
    s = ctx.socket(getattr(zmq, kind))
    s.setsockopt(zmq.HEARTBEAT_IVL, 20)
    s.setsockopt(zmq.HEARTBEAT_TIMEOUT, 5000)
    s.connect("tcp://" + addr)
    return s
s = None
for i in range(count):
    if s is None:
        s = new()
    event = {"timestamp": 1, "service": 1, "source": "192.0.2.1", "summary": "event %d" % i, "details": [], "packets": []}
    if kind == "DEALER":
        s.send(b"", zmq.SNDMORE)
    s.send_json(event)
    if kind == "DEALER":
        s.recv()
    print(s.recv_json()["status"])
    if not keep:
        s.close()
        s = None
    elif i == 0:
        sys.stdin.readline()
`

// waitForHeartbeats takes longer than one message may: heartbeats alone must
// keep a connection.
func waitForHeartbeats(t *testing.T, f *fixture, n uint64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); f.Stats().Commands < n; <-tick.C {
		if time.Since(began) > limit {
			t.Fatalf("%d heartbeats", f.Stats().Commands)
		}
	}
}

func TestLibzmq(t *testing.T) {
	for _, tt := range []struct{ kind, socket string }{
		{"REQ", "keep"}, {"REQ", "new"}, {"DEALER", "keep"},
	} {
		t.Run(tt.kind+" "+tt.socket, func(t *testing.T) {
			f := start(t, Config{Message: 300 * time.Millisecond}, &sink{})
			python := zmtptest.Start(t, pyzmqClient, f.addr, tt.kind, tt.socket, "5")
			var want []string
			for i := range 5 {
				if got := python.Line(); got != "ok" {
					t.Fatalf("reply %q", got)
				}
				want = append(want, fmt.Sprintf("svc1 event %d", i))
				if i == 0 && tt.socket == "keep" {
					waitForHeartbeats(t, f, 25)
					python.Say("go on")
				}
			}
			if diff := cmp.Diff(want, f.sink.summaries(t)); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
			if stats := f.Stats(); stats.Broken != 0 {
				t.Errorf("stats %+v", stats)
			}
		})
	}
}
