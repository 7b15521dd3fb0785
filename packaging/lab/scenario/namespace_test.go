package scenario

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"honeysens.org/dockersensor/shared/nettest"
)

// A process is taken to live where its first thread is: that one stays.
func TestNetnsFirstThreadStays(t *testing.T) {
	nettest.Need(t, "ip")
	name := fmt.Sprintf("scenario-%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("add namespace: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "delete", name).CombinedOutput(); err != nil {
			t.Errorf("delete namespace: %v: %s", err, out)
		}
	})
	place := func(file string) string {
		t.Helper()
		where, err := os.Readlink(file)
		if err != nil {
			t.Error(err)
		}
		return where
	}
	before := place("/proc/self/ns/net")
	var runs sync.WaitGroup
	for range 300 {
		runs.Go(func() {
			var inside string
			if err := inNamespace(name, func() error {
				inside = place("/proc/thread-self/ns/net")
				return nil
			}); err != nil {
				t.Error(err)
			}
			if inside == before {
				t.Error("it ran outside of the namespace")
			}
		})
	}
	runs.Wait()
	if after := place("/proc/self/ns/net"); after != before {
		t.Errorf("the first thread was in %s and is in %s", before, after)
	}
}
