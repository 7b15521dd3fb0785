package iface

import (
	"os"
	"strings"
	"testing"
	"time"
)

func waitFor(t *testing.T, file, text string) {
	t.Helper()
	waitForCount(t, file, text, 1)
}

// waitForCount waits until a file has a text so many times.
func waitForCount(t *testing.T, file, text string, count int) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		raw, err := os.ReadFile(file)
		if err == nil && strings.Count(string(raw), text) >= count {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not within 20 seconds: %d times %q in\n%s", count, text, raw)
		case <-tick.C:
		}
	}
}
