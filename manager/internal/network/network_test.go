package network

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/unixsock"
)

// serve plays the helper.
func serve(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "helper.sock")
	listener, err := unixsock.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return New(Config{Socket: path}, zaptest.NewLogger(t))
}

func wantKind(t *testing.T, err error, kind helperapi.Kind) {
	t.Helper()
	var refused *helperapi.Error
	if !errors.As(err, &refused) || refused.Kind != kind {
		t.Errorf("got %v, want kind %s", err, kind)
	}
}

func TestApply(t *testing.T) {
	want := helperapi.Network{
		Interface: helperapi.Interface{Name: "eth0", Mode: helperapi.ModeNone},
		Bridge:    helperapi.Bridge{V4: netip.MustParsePrefix("10.10.10.0/24"), CollectorPort: 5556},
		Services:  []helperapi.Service{}, Egress: helperapi.EgressDeny,
	}
	answer := helperapi.Observed{
		Applied: true, Services: []helperapi.ServiceObserved{{ID: "7", V4: netip.MustParseAddr("10.10.10.2")}},
		Heals: 3,
	}
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var got helperapi.Network
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" || r.Method != http.MethodPut {
			t.Errorf("%s %s", r.Method, diff)
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	})
	got, err := client.Apply(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(answer, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestFailures(t *testing.T) {
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	cases := map[string]struct {
		handler http.HandlerFunc
		want    helperapi.Kind
	}{
		"refused":        {answer(http.StatusConflict, `{"kind":"conflict","message":"taken"}`), helperapi.KindConflict},
		"without reason": {answer(http.StatusInternalServerError, "oops"), helperapi.KindInternal},
		"not an answer":  {answer(http.StatusOK, "oops"), helperapi.KindInternal},
		"endless":        {answer(http.StatusOK, strings.Repeat("x", maxAnswer+1)), helperapi.KindInternal},
		"redirect":       {answer(http.StatusFound, ""), helperapi.KindInternal},
		"hangs up":       {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, helperapi.KindUnknownOutcome},
		"ends in between": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("{"))
		}, helperapi.KindUnknownOutcome},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := serve(t, c.handler).Apply(t.Context(), helperapi.Network{})
			wantKind(t, err, c.want)
		})
	}
}

func TestHelperIsNotThere(t *testing.T) {
	client := New(Config{Socket: filepath.Join(t.TempDir(), "none.sock")}, zaptest.NewLogger(t))
	_, err := client.Apply(t.Context(), helperapi.Network{})
	wantKind(t, err, helperapi.KindUnavailable)
	if err == nil || !strings.Contains(err.Error(), "nethelper is not running at ") {
		t.Errorf("message %v", err)
	}
	_, err = client.Observe(t.Context())
	wantKind(t, err, helperapi.KindUnavailable)
}

func TestCallerThatGivesUp(t *testing.T) {
	arrived := make(chan struct{})
	client := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, err := client.Apply(ctx, helperapi.Network{})
	wantKind(t, err, helperapi.KindUnknownOutcome)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want one that says it was canceled", err)
	}
}
