package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/unixsock"

	"honeysens.org/dockersensor/shared/nettest"
)

const good = `{"interface":{"name":"eth0","mode":"none"},"bridge":{"v4":"10.10.10.0/24","collector_port":5556},"services":[],"egress":"deny"}`

// fakeNetwork answers with what the test wants.
type fakeNetwork struct {
	apply func(ctx context.Context) error
}

func (f *fakeNetwork) Apply(ctx context.Context, _ helperapi.Network) (helperapi.Observed, error) {
	if f.apply != nil {
		if err := f.apply(ctx); err != nil {
			return helperapi.Observed{}, err
		}
	}
	return helperapi.Observed{Applied: true}, nil
}

func (f *fakeNetwork) Release(context.Context) (helperapi.Observed, error) {
	return helperapi.Observed{}, nil
}

func (f *fakeNetwork) Probe(context.Context, helperapi.Probe) (helperapi.ProbeResult, error) {
	return helperapi.ProbeResult{Outcome: helperapi.ProbeAnswered}, nil
}

func (f *fakeNetwork) Observe(context.Context) (helperapi.Observed, error) {
	return helperapi.Observed{Applied: true}, nil
}

type bench struct {
	t    *testing.T
	path string
	logs *observer.ObservedLogs
	http *http.Client
	// served is closed after Serve has returned with err.
	served chan struct{}
	err    error
	stop   context.CancelFunc
}

func newBench(t *testing.T, writer uint32, network Network) *bench {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "helper.sock"), logs: logs, served: make(chan struct{})}
	listener, err := unixsock.Listen(b.path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	server := New(Config{Writer: writer, Health: helperapi.Health{Version: "test"}}, network, zap.New(core))
	ctx, stop := context.WithCancel(t.Context())
	b.stop = stop
	go func() {
		defer close(b.served)
		b.err = server.Serve(ctx, listener)
	}()
	t.Cleanup(func() {
		stop()
		<-b.served
	})
	b.http = unixsock.Client(b.path, 10*time.Second)
	return b
}

func (b *bench) do(method, path, body string) (int, helperapi.Error) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, "http://helper"+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	var refused helperapi.Error
	if resp.StatusCode != http.StatusOK {
		if err := json.Unmarshal(raw, &refused); err != nil {
			b.t.Fatalf("answer %q: %v", raw, err)
		}
	}
	return resp.StatusCode, refused
}

func uid() uint32 { return uint32(os.Getuid()) }

func TestHostileRequests(t *testing.T) {
	applied := 0
	b := newBench(t, uid(), &fakeNetwork{apply: func(context.Context) error { applied++; return nil }})
	cases := map[string]struct {
		method, path, body string
		status             int
		kind               helperapi.Kind
	}{
		"good":              {"PUT", "/v1/network", good, 200, ""},
		"read":              {"GET", "/v1/network", "", 200, ""},
		"health":            {"GET", "/v1/health", "", 200, ""},
		"no body":           {"PUT", "/v1/network", "", 400, helperapi.KindInvalid},
		"unknown field":     {"PUT", "/v1/network", `{"rules":["accept"],` + good[1:], 400, helperapi.KindInvalid},
		"trailing":          {"PUT", "/v1/network", good + good, 400, helperapi.KindInvalid},
		"huge":              {"PUT", "/v1/network", `{"egress":"` + strings.Repeat("a", helperapi.MaxBody) + `"}`, 400, helperapi.KindInvalid},
		"deep":              {"PUT", "/v1/network", strings.Repeat("[", 100_000), 400, helperapi.KindInvalid},
		"wrong method":      {"POST", "/v1/network", good, 400, helperapi.KindInvalid},
		"delete":            {"DELETE", "/v1/health", "", 400, helperapi.KindInvalid},
		"unknown path":      {"GET", "/v1/rules", "", 400, helperapi.KindInvalid},
		"root path":         {"GET", "/", "", 400, helperapi.KindInvalid},
		"method of its own": {"FLUSH", "/v1/network", "", 400, helperapi.KindInvalid},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			status, refused := b.do(c.method, c.path, c.body)
			if status != c.status || refused.Kind != c.kind {
				t.Errorf("got %d %+v, want %d %s", status, refused, c.status, c.kind)
			}
		})
	}
	if applied != 1 {
		t.Errorf("%d states applied, want only the good one", applied)
	}
	if got := b.logs.FilterMessage("changed network").Len(); got != 1 {
		t.Errorf("%d audit lines for changes, want 1", got)
	}
	if got, want := b.logs.FilterMessage("refused request").Len(), len(cases)-3; got != want {
		t.Errorf("%d audit lines for refusals, want %d", got, want)
	}
	for _, entry := range b.logs.All() {
		if len(fmt.Sprint(entry.ContextMap())) > 2000 {
			t.Errorf("log line of %d bytes", len(fmt.Sprint(entry.ContextMap())))
		}
	}
}

func TestKindsBecomeStatuses(t *testing.T) {
	cases := map[string]struct {
		err    error
		status int
		kind   helperapi.Kind
	}{
		"denied":        {&helperapi.Error{Kind: helperapi.KindDenied, Message: "no"}, 403, helperapi.KindDenied},
		"conflict":      {fmt.Errorf("wrapped: %w", &helperapi.Error{Kind: helperapi.KindConflict, Message: "no"}), 409, helperapi.KindConflict},
		"unavailable":   {&helperapi.Error{Kind: helperapi.KindUnavailable, Message: "no"}, 503, helperapi.KindUnavailable},
		"unknown":       {&helperapi.Error{Kind: helperapi.KindUnknownOutcome, Message: "no"}, 504, helperapi.KindUnknownOutcome},
		"of the kernel": {errors.New("netlink: secret detail"), 500, helperapi.KindInternal},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, uid(), &fakeNetwork{apply: func(context.Context) error { return c.err }})
			status, refused := b.do("PUT", "/v1/network", good)
			if status != c.status || refused.Kind != c.kind || strings.Contains(refused.Message, "secret") {
				t.Errorf("got %d %+v", status, refused)
			}
		})
	}
}

// TestRights is the table of who may do what.
func TestRights(t *testing.T) {
	const writer = 10001
	cases := []struct {
		uid         uint32
		read, write bool
	}{
		{writer, true, true}, {0, true, false}, {1000, false, false}, {^uint32(0), false, false},
	}
	s := New(Config{Writer: writer}, &fakeNetwork{}, zap.NewNop())
	for _, c := range cases {
		peer := unixsock.Peer{UID: c.uid}
		if read, write := s.may(peer, false), s.may(peer, true); read != c.read || write != c.write {
			t.Errorf("uid %d: read %v write %v, want %v %v", c.uid, read, write, c.read, c.write)
		}
	}
	writes := map[string]bool{}
	for _, r := range s.routes() {
		writes[r.method] = writes[r.method] || r.write
	}
	if writes["GET"] || !writes["PUT"] || !writes["DELETE"] || !writes["POST"] {
		t.Errorf("rights of methods: %v", writes)
	}
}

func TestRootMayOnlyRead(t *testing.T) {
	nettest.Need(t)
	b := newBench(t, 10001, &fakeNetwork{apply: func(context.Context) error { t.Error("applied"); return nil }})
	if status, refused := b.do("PUT", "/v1/network", good); status != 403 || refused.Kind != helperapi.KindDenied {
		t.Errorf("write: %d %+v", status, refused)
	}
	if status, _ := b.do("GET", "/v1/network", ""); status != 200 {
		t.Errorf("read: %d", status)
	}
}

func TestOthersAreRefusedAtOnce(t *testing.T) {
	if os.Getuid() == 0 {
		// Root may always read: play a server for which nobody is root.
		path := filepath.Join(t.TempDir(), "helper.sock")
		core, logs := observer.New(zap.DebugLevel)
		listener, err := unixsock.Listen(path, 0o660)
		if err != nil {
			t.Fatal(err)
		}
		guard := &guarded{Listener: listener, may: func(unixsock.Peer) bool { return false },
			slots: make(chan struct{}, 1), ended: make(chan struct{}), log: zap.New(core)}
		done := make(chan error, 1)
		go func() {
			_, err := guard.Accept()
			done <- err
		}()
		for range 3 {
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) && err == nil {
				t.Error("the connection stayed open")
			}
			conn.Close()
		}
		if err := guard.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept ended with %v", err)
		}
		if logs.FilterMessage("refused connection").Len() != 3 {
			t.Errorf("audit lines: %v", logs.All())
		}
	}
}

func TestOneChangeAtATime(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	b := newBench(t, uid(), &fakeNetwork{apply: func(context.Context) error {
		close(started)
		<-release
		return nil
	}})
	first := make(chan int, 1)
	go func() {
		status, _ := b.do("PUT", "/v1/network", good)
		first <- status
	}()
	<-started
	if status, refused := b.do("PUT", "/v1/network", good); status != 503 || refused.Kind != helperapi.KindUnavailable {
		t.Errorf("second change: %d %+v", status, refused)
	}
	close(release)
	if status := <-first; status != 200 {
		t.Errorf("first change: %d", status)
	}
}

func TestCallerThatHangsUpDoesNotStopTheChange(t *testing.T) {
	started, release, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	b := newBench(t, uid(), &fakeNetwork{apply: func(ctx context.Context) error {
		close(started)
		<-release
		result <- ctx.Err()
		return nil
	}})
	conn, err := net.Dial("unix", b.path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PUT /v1/network HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(good), good)
	<-started
	conn.Close()
	close(release)
	if err := <-result; err != nil {
		t.Errorf("the change was stopped: %v", err)
	}
}

func TestPanicEndsServing(t *testing.T) {
	b := newBench(t, uid(), &fakeNetwork{apply: func(context.Context) error { panic("half way") }})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://helper/v1/network", strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := b.http.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("answered with %s", resp.Status)
	}
	<-b.served
	if b.err == nil || !strings.Contains(b.err.Error(), "half way") {
		t.Errorf("Serve returned %v", b.err)
	}
}

// Idle connections wait in line; the socket works again once they have gone.
func TestManyConnections(t *testing.T) {
	b := newBench(t, uid(), &fakeNetwork{})
	var conns []net.Conn
	for range maxConnections + 4 {
		conn, err := net.Dial("unix", b.path)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		conn.Close()
	}
	if status, _ := b.do("GET", "/v1/health", ""); status != 200 {
		t.Errorf("health: %d", status)
	}
}

func TestServeEndsWhileConnectionsAreOpen(t *testing.T) {
	b := newBench(t, uid(), &fakeNetwork{})
	for range maxConnections {
		conn, err := net.Dial("unix", b.path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	b.stop()
	<-b.served
	if b.err != nil {
		t.Error(b.err)
	}
}

// A request that comes byte by byte is cut off, and leaves a line.
func TestSlowRequestIsCutOff(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	path := filepath.Join(t.TempDir(), "helper.sock")
	listener, err := unixsock.Listen(path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	server := New(Config{Writer: uid()}, &fakeNetwork{}, zap.New(core))
	server.readTimeout = 50 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- server.Serve(ctx, listener) }()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "PUT /v1/network HTTP/1.1\r\nHost")
	if answer, err := io.ReadAll(conn); err != nil || strings.Contains(string(answer), "200") {
		t.Errorf("answered with %q, %v", answer, err)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	lines := logs.FilterMessage("refused request").FilterField(zap.String("kind", "invalid")).FilterField(zap.Uint32("uid", uid()))
	if lines.Len() != 1 {
		t.Errorf("audit lines: %v", logs.All())
	}
}
