package unixsock

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestServeTellsThePeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.sock")
	listener, err := Listen(path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		ConnContext: WithPeer,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer, ok := PeerFrom(r.Context())
			if !ok || int(peer.UID) != os.Getuid() || int(peer.PID) != os.Getpid() {
				http.Error(w, "wrong peer", http.StatusForbidden)
			}
		}),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	resp, err := Client(path, time.Second).Get("http://socket/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	<-done
}

func TestListenReplacesAStaleSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.sock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := Listen(path, 0o600)
	if err != nil {
		t.Fatalf("stale file: %v", err)
	}
	if second, err := Listen(path, 0o600); err == nil {
		t.Error("a served socket was taken over", second.Close())
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	again, err := Listen(path, 0o600)
	if err != nil {
		t.Fatalf("after close: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
