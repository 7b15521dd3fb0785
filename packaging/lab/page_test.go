package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// The page is for a look: it is read, and nothing is changed through it.
func TestServePage(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	behind, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = http.Serve(behind, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "page "+r.URL.Path) }))
	}()
	t.Cleanup(func() { _ = behind.Close() })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- servePage(ctx, listener, socket) }()

	url := "http://" + listener.Addr().String() + "/api/sensors"
	got, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if text, err := io.ReadAll(got.Body); err != nil || string(text) != "page /api/sensors" {
		t.Errorf("%q, %v", text, err)
	}
	changed, err := http.Post(url, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer changed.Body.Close()
	if changed.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a change is answered %s", changed.Status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("end: %v", err)
	}
}
