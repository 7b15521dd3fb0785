// Package squidtest runs a real squid for tests, with the ways of knowing its
// users that sensors meet. It is used by tests only.
package squidtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/nettest"
)

// Auth is how the proxy knows its users.
type Auth int

// The ways. Both at once is what proxies in companies offer.
const (
	// Open asks nobody.
	Open Auth = 1 << iota
	// Basic knows one user, User with Password.
	Basic
	// NTLM goes by Debian's fake helper: it plays the whole protocol, and
	// believes every user.
	NTLM
)

// The user that Basic knows.
const (
	User     = "sensor ü"
	Password = "p:@ w=d;#x%ü" // #nosec G101 -- of a test
)

// helpers is where Debian keeps squid's.
const helpers = "/usr/lib/squid"

// patience ends a test that hangs, on a machine that is busy.
const patience = time.Minute

// Squid is a running proxy, on the loopback interface. It ends with the test.
type Squid struct {
	Host string
	Port uint16
	dir  string
}

// Start starts squid and waits until it answers.
func Start(t testing.TB, auth Auth) *Squid {
	t.Helper()
	nettest.Need(t, "squid")
	s := &Squid{Host: "127.0.0.1", Port: freePort(t), dir: room(t)}
	config := filepath.Join(s.dir, "squid.conf")
	// #nosec G306 -- squid gives up root before it reads them
	if err := os.WriteFile(config, []byte(s.config(auth)), 0o644); err != nil {
		t.Fatal(err)
	}
	users := fmt.Sprintf("%s:%s\n", User, crypt(t, Password))
	// #nosec G306 -- as above
	if err := os.WriteFile(filepath.Join(s.dir, "users"), []byte(users), 0o644); err != nil {
		t.Fatal(err)
	}
	// The name keeps its shared memory apart from that of other squids.
	name := "test" + strconv.Itoa(int(s.Port))
	cmd := exec.Command("squid", //nolint:noctx // it is ended as a group
		"-N", "-n", name, "-f", config)
	// Its helpers end with it as a group.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		<-done
		left, _ := filepath.Glob("/dev/shm/" + name + "-*")
		for _, file := range left {
			_ = os.Remove(file)
		}
	})
	s.wait(t, done)
	return s
}

func (s *Squid) config(auth Auth) string {
	lines := []string{
		fmt.Sprintf("http_port %s:%d", s.Host, s.Port),
		"pid_filename none", "netdb_filename none", "cache deny all", "coredump_dir " + s.dir,
		"cache_log " + filepath.Join(s.dir, "cache.log"),
		"shutdown_lifetime 0 seconds",
		"logformat test %>rm %ru %un %>Hs", "access_log stdio:" + filepath.Join(s.dir, "access.log") + " logformat=test", "buffered_logs off",
	}
	if auth&NTLM != 0 {
		lines = append(lines, "auth_param ntlm program "+helpers+"/ntlm_fake_auth", "auth_param ntlm children 4 startup=1 idle=1")
	}
	if auth&Basic != 0 {
		lines = append(lines, "auth_param basic program "+helpers+"/basic_ncsa_auth "+filepath.Join(s.dir, "users"),
			"auth_param basic children 4 startup=1 idle=1", "auth_param basic utf8 on")
	}
	who := "all"
	if auth&(NTLM|Basic) != 0 {
		lines, who = append(lines, "acl known proxy_auth REQUIRED"), "known"
	}
	return strings.Join(append(lines, "http_access allow CONNECT "+who, "http_access deny all"), "\n") + "\n"
}

// WantSeen waits until the access log has n lines or more that begin with a
// text: method, what was asked for, user and status of a request. A tunnel is
// written down when it ends.
func (s *Squid) WantSeen(t testing.TB, n int, begin string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		text, err := os.ReadFile(filepath.Join(s.dir, "access.log"))
		if err == nil && strings.Count("\n"+string(text), "\n"+begin) >= n {
			return
		}
		if time.Since(began) > patience {
			t.Fatalf("want %d of %q in squid's log: %v\n%s", n, begin, err, text)
		}
	}
}

// room is a directory that squid, which gives up root, can write to.
func room(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "squid") //nolint:usetesting // those of t.TempDir are closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	proxy, err := user.Lookup("proxy")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(proxy.Uid)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, -1); err != nil {
		t.Fatal(err)
	}
	return dir
}

// crypt is a password as htpasswd writes it.
func crypt(t testing.TB, password string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", "passwd", "-apr1", "-stdin")
	cmd.Stdin = strings.NewReader(password)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl passwd: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func freePort(t testing.TB) uint16 {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	_, text, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(port)
}

// wait returns once the proxy takes connections.
func (s *Squid) wait(t testing.TB, done <-chan struct{}) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	address := net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port)))
	for began := time.Now(); ; <-tick.C {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-done:
			log, _ := os.ReadFile(filepath.Join(s.dir, "cache.log"))
			t.Fatalf("squid ended:\n%.3000s", log)
		default:
		}
		if time.Since(began) > patience {
			t.Fatalf("squid does not answer: %v", err)
		}
	}
}
