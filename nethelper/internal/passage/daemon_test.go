package passage

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"honeysens.org/dockersensor/shared/nettest"
)

// room is a mount namespace on a host, in which programs find settings and
// sockets that are nobody else's, as on a machine of its own.
type room struct {
	t    *testing.T
	host *nettest.Host
	dir  string
	pid  int
	path string
}

// furnish hides what the firewalls write to. It holds the namespace until the
// test ends.
const furnish = `set -e
for d in /etc/ufw /etc/default /etc/firewalld /etc/dbus-1; do
	mkdir -p "$1/$d"; cp -a "$d/." "$1/$d"; mount --bind "$1/$d" "$d"
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /run/dbus /run/lock
echo ready
exec sleep infinity`

func newRoom(t *testing.T, h *nettest.Host) *room {
	t.Helper()
	nettest.Need(t, "unshare", "nsenter")
	r := &room{t: t, host: h, dir: t.TempDir(), path: os.Getenv("PATH")}
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", furnish, "room", r.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatalf("room is not furnished: %v", err)
	}
	r.pid = cmd.Process.Pid
	return r
}

// iptables makes the programs in the room use one of the two kinds, as
// update-alternatives would.
func (r *room) iptables(multi string) {
	r.t.Helper()
	bin := filepath.Join(r.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		r.t.Fatal(err)
	}
	for _, name := range []string{"iptables", "ip6tables", "iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"} {
		if err := os.Symlink(multi, filepath.Join(bin, name)); err != nil {
			r.t.Fatal(err)
		}
	}
	r.path = bin + ":" + r.path
}

func (r *room) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{fmt.Sprintf("--mount=/proc/%d/ns/mnt", r.pid), "--", "env", "PATH=" + r.path, name}, args...)...)
	return cmd
}

func (r *room) run(name string, args ...string) {
	r.t.Helper()
	var out bytes.Buffer
	cmd := r.command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.host.Start(cmd); err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		r.t.Fatalf("%s %v: %v\n%s", name, args, err, &out)
	}
}

// daemon starts a program, waits until ready returns nil, and returns how to
// stop it, which the end of the test does as well.
func (r *room) daemon(ready func() error, name string, args ...string) (cmd *exec.Cmd, stop func()) {
	r.t.Helper()
	var out bytes.Buffer
	cmd = r.command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.host.Start(cmd); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	r.t.Cleanup(stop)
	if err := waitFor(30*time.Second, ready); err != nil {
		stop()
		r.t.Fatalf("%s: %v\n%s", name, err, &out)
	}
	return cmd, stop
}

// waitFor calls ready until it returns nil, for as long as that may take.
func waitFor(limit time.Duration, ready func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); ; <-tick.C {
		err := ready()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
