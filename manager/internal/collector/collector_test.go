package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/shared/event"
	"honeysens.org/dockersensor/shared/zmtp"
)

// limit ends a test that hangs.
const limit = 20 * time.Second

// sink keeps events in memory.
type sink struct {
	mu      sync.Mutex
	records []event.Record
	err     error
	// gate, when not nil, holds up every event.
	gate chan struct{}
	// entered receives when an event has come as far as the gate.
	entered chan struct{}
}

func (s *sink) Append(ctx context.Context, r event.Record) (uint64, error) {
	if s.gate != nil {
		s.entered <- struct{}{}
		select {
		case <-s.gate:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	s.records = append(s.records, r)
	return uint64(len(s.records)), nil
}

func (s *sink) summaries(t *testing.T) []string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, r := range s.records {
		var e event.Event
		if err := json.Unmarshal(r.Event, &e); err != nil {
			t.Fatalf("event in sink: %v", err)
		}
		out = append(out, r.Origin+" "+e.Summary)
	}
	return out
}

// homes gives every address of 127.0.0.0/8 but those under 127.9 to a service.
func homes(addr netip.Addr) (string, bool) {
	b := addr.As4()
	return fmt.Sprintf("svc%d", b[3]), b[1] != 9
}

type fixture struct {
	*Collector
	sink *sink
	addr string
	stop func() error
}

// start runs a collector on loopback until the end of the test.
func start(t testing.TB, cfg Config, s *sink) *fixture {
	t.Helper()
	f := startWith(t, cfg, s)
	f.sink = s
	return f
}

func startWith(t testing.TB, cfg Config, s Sink) *fixture {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{Collector: New(cfg, s, homes, zaptest.NewLogger(t)), addr: listener.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, listener) }()
	f.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := f.stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return f
}

// dial connects from an address of loopback.
func dial(t testing.TB, from, to string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	raw, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	if err := raw.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return raw
}

// open connects and shakes hands.
func open(t testing.TB, from, to, socketType string) (*zmtp.Conn, net.Conn) {
	t.Helper()
	raw := dial(t, from, to)
	conn, err := zmtp.NewConn(raw, zmtp.Config{Type: socketType, Peers: []string{zmtp.TypeREP}})
	if err != nil {
		t.Fatal(err)
	}
	return conn, raw
}

func body(summary string) []byte {
	return fmt.Appendf(nil, `{"timestamp": 1, "service": 1, "source": "192.0.2.1", "summary": %q, "details": [], "packets": []}`, summary)
}

// ask sends the parts and returns the parts of the reply.
func ask(t testing.TB, conn *zmtp.Conn, parts ...[]byte) []string {
	t.Helper()
	if err := conn.Send(parts...); err != nil {
		t.Fatal(err)
	}
	return hear(t, conn)
}

func hear(t testing.TB, conn *zmtp.Conn) []string {
	t.Helper()
	parts, err := conn.Receive()
	if err != nil {
		t.Fatalf("receive reply: %v", err)
	}
	var out []string
	for _, part := range parts {
		out = append(out, string(part))
	}
	return out
}

func TestEveryMessageGetsAReply(t *testing.T) {
	empty := []byte{}
	many := make([][]byte, 20)
	tests := []struct {
		name, socketType string
		parts            [][]byte
		want             []string // the last one is a part of the reply's text
	}{
		{"REQ", zmtp.TypeREQ, [][]byte{empty, body("a")}, []string{"", replyOK}},
		{"DEALER with a delimiter", zmtp.TypeDEALER, [][]byte{empty, body("a")}, []string{"", replyOK}},
		{"DEALER with an envelope", zmtp.TypeDEALER, [][]byte{[]byte("id"), empty, body("a")}, []string{"id", "", replyOK}},
		{"DEALER with a body only", zmtp.TypeDEALER, [][]byte{body("a")}, []string{replyOK}},
		{"not JSON", zmtp.TypeREQ, [][]byte{empty, []byte("hello")}, []string{"", "not a JSON object"}},
		{"empty body", zmtp.TypeREQ, [][]byte{empty, empty}, []string{"", "not a JSON object"}},
		{"beyond repair", zmtp.TypeREQ, [][]byte{empty, []byte(`{"service": 9}`)}, []string{"", "service: want 0, 1 or 2"}},
		{"deep", zmtp.TypeREQ, [][]byte{empty, bytes.Repeat([]byte("["), 90_000)}, []string{"", "deeper"}},
		{"two bodies", zmtp.TypeREQ, [][]byte{empty, body("a"), body("b")}, []string{"", "want an empty part"}},
		{"no delimiter", zmtp.TypeDEALER, [][]byte{[]byte("a"), []byte("b")}, []string{"want an empty part"}},
		{"too large", zmtp.TypeREQ, [][]byte{empty, make([]byte, 200_000)}, []string{"", "larger"}},
		{"too many parts", zmtp.TypeREQ, many, []string{"", "parts"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, Config{MaxMessage: 100_000}, &sink{})
			conn, _ := open(t, "127.0.0.7", f.addr, tt.socketType)
			got := ask(t, conn, tt.parts...)
			last := len(tt.want) - 1
			if len(got) != len(tt.want) || !cmp.Equal(got[:last], tt.want[:last]) || !strings.Contains(got[last], tt.want[last]) {
				t.Fatalf("reply %q, want %q", got, tt.want)
			}
			if isOK := tt.want[last] == replyOK; isOK == strings.Contains(got[last], `"status":"error"`) {
				t.Errorf("reply %q", got[last])
			}
			// The connection goes on.
			if got := ask(t, conn, empty, body("next")); got[1] != replyOK {
				t.Errorf("next reply %q", got)
			}
		})
	}
}

func TestIdentityIsTheAddress(t *testing.T) {
	f := start(t, Config{}, &sink{})
	for _, from := range []string{"127.0.0.7", "127.0.0.8"} {
		conn, _ := open(t, from, f.addr, zmtp.TypeREQ)
		ask(t, conn, nil, body("from "+from))
	}
	want := []string{"svc7 from 127.0.0.7", "svc8 from 127.0.0.8"}
	if diff := cmp.Diff(want, f.sink.summaries(t)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if stats := f.Stats(); stats.Accepted != 2 || stats.Connections != 2 {
		t.Errorf("stats %+v", stats)
	}
}

func TestStrangers(t *testing.T) {
	f := start(t, Config{}, &sink{})
	if _, err := io.Copy(io.Discard, dial(t, "127.9.0.1", f.addr)); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a stranger is kept waiting")
	}
	if stats := f.Stats(); stats.Refused != 1 {
		t.Errorf("stats %+v", stats)
	}
	f = start(t, Config{AnyPeer: true}, &sink{})
	conn, _ := open(t, "127.9.0.1", f.addr, zmtp.TypeREQ)
	ask(t, conn, nil, body("a"))
	if diff := cmp.Diff([]string{"127.9.0.1 a"}, f.sink.summaries(t)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// TestReplyFollowsTheSink holds the sink up and wants silence until then.
func TestReplyFollowsTheSink(t *testing.T) {
	s := &sink{gate: make(chan struct{}), entered: make(chan struct{}, 1)}
	f := start(t, Config{}, s)
	conn, raw := open(t, "127.0.0.7", f.addr, zmtp.TypeREQ)
	if err := conn.Send(nil, body("a")); err != nil {
		t.Fatal(err)
	}
	<-s.entered
	if err := raw.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Begin(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a reply before the event was kept: %v", err)
	}
	close(s.gate)
	if err := raw.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	if got := hear(t, conn); got[1] != replyOK {
		t.Errorf("reply %q", got)
	}
}

func TestSinkSaysNo(t *testing.T) {
	f := start(t, Config{}, &sink{err: errors.New("no space left on device")})
	conn, _ := open(t, "127.0.0.7", f.addr, zmtp.TypeREQ)
	if got := ask(t, conn, nil, body("a")); !strings.Contains(got[1], "cannot keep events") {
		t.Errorf("reply %q", got)
	}
	if stats := f.Stats(); stats.Failed != 1 || stats.Accepted != 0 {
		t.Errorf("stats %+v", stats)
	}
}

// TestPipelinedRequests sends all of them before it reads a reply.
func TestPipelinedRequests(t *testing.T) {
	f := start(t, Config{}, &sink{})
	conn, _ := open(t, "127.0.0.7", f.addr, zmtp.TypeDEALER)
	var want []string
	for i := range 20 {
		id := fmt.Sprint(i)
		if err := conn.Send([]byte(id), nil, body(id)); err != nil {
			t.Fatal(err)
		}
		want = append(want, "svc7 "+id)
	}
	for i := range 20 {
		if got := hear(t, conn); got[0] != fmt.Sprint(i) {
			t.Fatalf("reply to %s, want to %d", got[0], i)
		}
	}
	if diff := cmp.Diff(want, f.sink.summaries(t)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// TestEndAnswersWhatIsHere stops the collector while it keeps an event.
func TestEndAnswersWhatIsHere(t *testing.T) {
	s := &sink{gate: make(chan struct{}), entered: make(chan struct{}, 1)}
	f := start(t, Config{}, s)
	conn, _ := open(t, "127.0.0.7", f.addr, zmtp.TypeREQ)
	idle, _ := open(t, "127.0.0.7", f.addr, zmtp.TypeREQ)
	if err := conn.Send(nil, body("a")); err != nil {
		t.Fatal(err)
	}
	<-s.entered
	stopped := make(chan error, 1)
	go func() { stopped <- f.stop() }()
	if err := idle.Begin(); !errors.Is(err, io.EOF) {
		t.Errorf("idle connection: %v, want its end", err)
	}
	close(s.gate)
	if got := hear(t, conn); got[1] != replyOK {
		t.Errorf("reply %q", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
