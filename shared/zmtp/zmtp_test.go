package zmtp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/zmtp/zmtptest"
)

// limit ends a test that hangs.
const limit = 10 * time.Second

// canned is a peer that sends what it was given and hears nothing.
type canned struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (c *canned) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *canned) Write(p []byte) (int, error) { return c.out.Write(p) }

func serverConfig() Config {
	return Config{Type: TypeREP, Peers: []string{TypeREQ, TypeDEALER}, MaxMessage: 1000, MaxSkip: 5000, MaxParts: 4}
}

func ready(socketType string) []byte {
	return appendFrame(nil, flagCommand, joinCommand("READY", appendProperty(nil, "Socket-Type", socketType)))
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func long(flags byte, size uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{flags | flagLong}, size)
}

// edited returns a good greeting with one byte changed.
func edited(at int, to byte) []byte {
	g := greeting()
	g[at] = to
	return g
}

func TestHandshake(t *testing.T) {
	property := func(name, value string) []byte { return appendProperty(nil, name, value) }
	command := func(name string, data ...[]byte) []byte {
		return appendFrame(nil, flagCommand, joinCommand(name, join(data...)))
	}
	many := []byte{}
	for _, c := range "abcdefghijklmnopq" {
		many = append(many, property(string(c), "")...)
	}
	tests := []struct {
		name string
		in   []byte
		want string // in the error; empty for success
	}{
		{"REQ", join(greeting(), ready(TypeREQ)), ""},
		{"DEALER", join(greeting(), ready(TypeDEALER)), ""},
		{"3.0", join(edited(11, 0), ready(TypeREQ)), ""},
		{"4.0 talks down", join(edited(10, 4), ready(TypeREQ)), ""},
		{"name in another case, identity", join(greeting(), command("READY", property("SOCKET-TYPE", "REQ"), property("Identity", "x"))), ""},
		{"nothing", nil, "EOF"},
		{"web browser", []byte("GET / HTTP/1.1\r\n\r\n"), "not ZMTP"},
		{"2.0", edited(10, 1), "version 1"},
		{"half a greeting", greeting()[:40], "unexpected EOF"},
		{"PLAIN", join(append(append(greeting()[:12:12], "PLAIN"...), make([]byte, 47)...)), "want NULL"},
		{"NULLX", edited(16, 'X'), "want NULL"},
		{"NULL with a tail", edited(20, 'X'), "want NULL"},
		{"no READY", greeting(), "unexpected EOF"},
		{"SUB", join(greeting(), ready("SUB")), "socket type"},
		{"REP", join(greeting(), ready("REP")), "socket type"},
		{"no socket type", join(greeting(), command("READY")), "socket type"},
		{"message first", join(greeting(), appendFrame(nil, 0, []byte("x"))), "before READY"},
		{"PING first", join(greeting(), command("PING", []byte{0, 0})), "want READY"},
		{"ERROR", join(greeting(), command("ERROR", []byte("\x02no"))), "refuses"},
		{"READY of 513 bytes", join(greeting(), long(flagCommand, 513), make([]byte, 513)), "at most 512"},
		{"READY of 2^62 bytes", join(greeting(), long(flagCommand, 1<<62)), "at most 512"},
		{"READY of 2^63 bytes", join(greeting(), long(flagCommand, 1<<63)), "first bit"},
		{"reserved bits", join(greeting(), []byte{0x84, 0}), "reserved"},
		{"command with more", join(greeting(), []byte{flagCommand | flagMore, 0}), "command with flags"},
		{"empty command", join(greeting(), []byte{flagCommand, 0}), "name is cut"},
		{"name longer than command", join(greeting(), []byte{flagCommand, 2, 9, 'R'}), "name is cut"},
		{"property without a name", join(greeting(), command("READY", []byte{0})), "name is cut"},
		{"property name cut", join(greeting(), command("READY", []byte{9, 'a'})), "name is cut"},
		{"property value cut", join(greeting(), command("READY", []byte{1, 'a', 0, 0, 0, 5, 'x'})), "value is cut"},
		{"property value of 4 GiB", join(greeting(), command("READY", []byte{1, 'a', 255, 255, 255, 255})), "value is cut"},
		{"property length cut", join(greeting(), command("READY", []byte{1, 'a', 0})), "value is cut"},
		{"property name with a space", join(greeting(), command("READY", property("a b", ""))), "not allowed"},
		{"property twice", join(greeting(), command("READY", property("a", ""), property("A", ""))), "twice"},
		{"17 properties", join(greeting(), command("READY", many)), "more than 16"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			peer := &canned{in: bytes.NewReader(tt.in)}
			_, err := NewConn(peer, serverConfig())
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			if !bytes.HasPrefix(peer.out.Bytes(), greeting()) {
				t.Error("no greeting was sent")
			}
		})
	}
}

func TestReceive(t *testing.T) {
	part := func(flags byte, body string) []byte { return appendFrame(nil, flags, []byte(body)) }
	ping := appendFrame(nil, flagCommand, joinCommand("PING", []byte("\x00\x10ctx")))
	pongFrame := appendFrame(nil, flagCommand, joinCommand("PONG", []byte("ctx")))
	tests := []struct {
		name  string
		in    []byte
		parts []string
		want  string // in the error
		is    error
		sent  []byte
	}{
		{name: "request", in: join(part(flagMore, ""), part(0, "body")), parts: []string{"", "body"}},
		{name: "long form of a short frame", in: join(long(0, 2), []byte("ab")), parts: []string{"ab"}},
		{name: "largest body", in: part(0, strings.Repeat("x", 998)), parts: []string{strings.Repeat("x", 998)}},
		{name: "heartbeat first", in: join(ping, part(0, "a")), parts: []string{"a"}, sent: pongFrame},
		{name: "heartbeat between parts", in: join(part(flagMore, "a"), ping, part(0, "b")), parts: []string{"a", "b"}, sent: pongFrame},
		{name: "unknown command", in: join(appendFrame(nil, flagCommand, joinCommand("HELLO", nil)), part(0, "a")), parts: []string{"a"}},
		{name: "too large", in: part(0, strings.Repeat("x", 999)), is: ErrTooLarge},
		{name: "too large in parts", in: join(part(flagMore, strings.Repeat("x", 600)), part(flagMore, strings.Repeat("x", 600)), part(0, "")), is: ErrTooLarge},
		{name: "five parts", in: join(bytes.Repeat(part(flagMore, ""), 4), part(0, "")), is: ErrTooManyParts},
		{name: "over what is skipped", in: long(0, 5001), want: "5000 bytes that are read"},
		{name: "endless empty parts", in: bytes.Repeat(part(flagMore, ""), 3000), want: "5000 bytes that are read"},
		{name: "2^62", in: long(0, 1<<62), want: "frame of 4611686018427387904"},
		{name: "2^63", in: long(0, 1<<63), want: "first bit"},
		{name: "reserved bits", in: []byte{0x08, 0}, want: "reserved"},
		{name: "command too large", in: long(flagCommand, 513), want: "at most 512"},
		{name: "long context", in: appendFrame(nil, flagCommand, joinCommand("PING", make([]byte, 19))), want: "ping"},
		{name: "short ping", in: appendFrame(nil, flagCommand, joinCommand("PING", make([]byte, 1))), want: "ping"},
		{name: "ERROR", in: appendFrame(nil, flagCommand, joinCommand("ERROR", []byte("\x01x"))), want: "gives up"},
		{name: "end", in: nil, is: io.EOF},
		{name: "end in a header", in: []byte{0}, is: io.ErrUnexpectedEOF},
		{name: "end in a length", in: []byte{flagLong, 0, 0}, is: io.ErrUnexpectedEOF},
		{name: "end in a body", in: []byte{0, 5, 'a'}, is: io.ErrUnexpectedEOF},
		{name: "end between parts", in: part(flagMore, "a"), is: io.ErrUnexpectedEOF},
		{name: "end in a skipped body", in: join(long(0, 4000), make([]byte, 10)), is: io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			peer := &canned{in: bytes.NewReader(join(greeting(), ready(TypeREQ), tt.in))}
			conn, err := NewConn(peer, serverConfig())
			if err != nil {
				t.Fatalf("handshake: %v", err)
			}
			peer.out.Reset()
			parts, err := conn.Receive()
			switch {
			case tt.is != nil:
				if !errors.Is(err, tt.is) {
					t.Errorf("error %v, want %v", err, tt.is)
				}
			case tt.want != "":
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
			case err != nil:
				t.Errorf("receive: %v", err)
			}
			if diff := cmp.Diff(tt.parts, asStrings(parts)); diff != "" {
				t.Errorf("parts (-want +got):\n%s", diff)
			}
			if !bytes.Equal(peer.out.Bytes(), tt.sent) {
				t.Errorf("sent %q, want %q", peer.out.Bytes(), tt.sent)
			}
		})
	}
}

func asStrings(parts [][]byte) []string {
	var out []string
	for _, part := range parts {
		out = append(out, string(part))
	}
	return out
}

// TestRefusedMessageIsOver proves that what was thrown away ends where the next
// message begins.
func TestRefusedMessageIsOver(t *testing.T) {
	in := join(greeting(), ready(TypeREQ),
		appendFrame(nil, flagMore, make([]byte, 2000)), appendFrame(nil, 0, make([]byte, 2000)),
		appendFrame(nil, 0, []byte("next")))
	conn, err := NewConn(&canned{in: bytes.NewReader(in)}, serverConfig())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Receive(); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("error %v, want %v", err, ErrTooLarge)
	}
	parts, err := conn.Receive()
	if err != nil || len(parts) != 1 || string(parts[0]) != "next" {
		t.Fatalf("parts %q, error %v", parts, err)
	}
}

// TestAnnouncedSizeIsNotAllocated measures what a large announcement with
// nothing behind it costs.
func TestAnnouncedSizeIsNotAllocated(t *testing.T) {
	cfg := serverConfig()
	cfg.MaxMessage = 1 << 30
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			in := join(greeting(), ready(TypeREQ), long(0, 1<<29))
			conn, err := NewConn(&canned{in: bytes.NewReader(in)}, cfg)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := conn.Receive(); !errors.Is(err, io.ErrUnexpectedEOF) {
				b.Fatalf("error %v", err)
			}
		}
	})
	if got := result.AllocedBytesPerOp(); got > 64<<10 {
		t.Errorf("%d bytes were allocated for a frame that never came", got)
	}
}

// serveOnce answers one connection by fn.
func serveOnce(t *testing.T, fn func(net.Conn)) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := listener.Accept()
		if err != nil {
			return
		}
		defer func() { _ = raw.Close() }()
		fn(raw)
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return listener.Addr().String()
}

func TestRequest(t *testing.T) {
	addr := serveOnce(t, func(raw net.Conn) {
		conn, err := NewConn(raw, serverConfig())
		if err != nil {
			t.Errorf("handshake: %v", err)
			return
		}
		parts, err := conn.Receive()
		if err != nil || conn.PeerType() != TypeREQ {
			t.Errorf("receive from %s: %v", conn.PeerType(), err)
			return
		}
		if err := conn.Send(parts[0], append([]byte("re: "), parts[1]...)); err != nil {
			t.Errorf("send: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	reply, err := Request(ctx, addr, []byte("hello"))
	if err != nil || string(reply) != "re: hello" {
		t.Fatalf("reply %q, error %v", reply, err)
	}
}

func TestRequestRefusesReplies(t *testing.T) {
	tests := []struct {
		name  string
		parts [][]byte
		want  string
	}{
		{"no envelope", [][]byte{[]byte("x")}, "1 parts"},
		{"full envelope", [][]byte{[]byte("x"), []byte("y")}, "2 parts"},
		{"too large", [][]byte{nil, make([]byte, maxReply)}, "larger"},
		{"none", nil, "unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr := serveOnce(t, func(raw net.Conn) {
				conn, err := NewConn(raw, serverConfig())
				if err != nil {
					t.Errorf("handshake: %v", err)
					return
				}
				if _, err := conn.Receive(); err != nil {
					t.Errorf("receive: %v", err)
				}
				if tt.parts != nil {
					_ = conn.Send(tt.parts...)
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if _, err := Request(ctx, addr, []byte("x")); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestRequestEndsWithItsContext uses a server that accepts and says nothing.
func TestRequestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	addr := serveOnce(t, func(raw net.Conn) {
		_, _ = io.ReadFull(raw, make([]byte, greetingSize))
		cancel()
		_, _ = io.Copy(io.Discard, raw)
	})
	if _, err := Request(ctx, addr, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want %v", err, context.Canceled)
	}
}

const pyzmqREP = `
import sys, zmq
s = zmq.Context().socket(getattr(zmq, sys.argv[1]))
print(s.bind_to_random_port("tcp://127.0.0.1"))
for _ in range(3):
    parts = s.recv_multipart()
    parts[-1] = b"re: " + parts[-1]
    s.send_multipart(parts)
`

// TestRequestToLibzmq talks to the library that everybody else uses.
func TestRequestToLibzmq(t *testing.T) {
	for _, socketType := range []string{TypeREP, TypeROUTER} {
		t.Run(socketType, func(t *testing.T) {
			server := zmtptest.Start(t, pyzmqREP, socketType)
			addr := net.JoinHostPort("127.0.0.1", server.Line())
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			for _, size := range []int{0, 255, 256} {
				body := strings.Repeat("x", size)
				reply, err := Request(ctx, addr, []byte(body))
				if err != nil || string(reply) != "re: "+body {
					t.Fatalf("reply %q, error %v", reply, err)
				}
			}
		})
	}
}

func FuzzConn(f *testing.F) {
	part := func(flags byte, body string) []byte { return appendFrame(nil, flags, []byte(body)) }
	f.Add(join(greeting(), ready(TypeREQ), part(flagMore, ""), part(0, `{"a": 1}`)))
	f.Add(join(greeting(), ready(TypeDEALER), part(0, "x"), long(0, 1<<62)))
	f.Add(join(greeting(), ready("SUB")))
	f.Add(join(edited(11, 0), ready(TypeREQ), appendFrame(nil, flagCommand, joinCommand("PING", []byte("\x00\x01abc")))))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		cfg := serverConfig()
		conn, err := NewConn(&canned{in: bytes.NewReader(in)}, cfg)
		if err != nil {
			return
		}
		for {
			parts, err := conn.Receive()
			if err != nil && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrTooManyParts) {
				return
			}
			size := 0
			for _, part := range parts {
				size += len(part)
			}
			if size > cfg.MaxMessage || len(parts) > cfg.MaxParts {
				t.Fatalf("%d parts with %d bytes got through", len(parts), size)
			}
		}
	})
}
