package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/helperapi"
)

// managerUID is the one user that the helper serves here, so that root's and
// other users' rights can be told from it.
const managerUID = 10001

// victims is a host with what an attacker with the manager's rights is after.
type victims struct {
	*bench
	ssh, recon, ended *hosttest.Container
	// stranger is a process of the host, other a network of another sensor.
	stranger int
	other    netip.Prefix
}

func newVictims(t *testing.T) *victims {
	v := &victims{bench: newBench(t), stranger: os.Getppid(), other: netip.MustParsePrefix("10.77.0.0/24")}
	v.host.Run("ip", "link", "add", "services-ffffff", "type", "bridge")
	v.host.Run("ip", "addr", "add", "10.77.0.1/24", "dev", "services-ffffff")
	v.host.Run("ip", "link", "set", "services-ffffff", "up")
	v.host.Run("ip", "route", "add", "10.88.0.0/16", "via", hosttest.AttackerV4)
	v.ssh, v.recon = v.twoHoneypots()
	v.ended = hosttest.NewContainer(t, "ended")
	v.ended.Stop()
	v.start("--allow-uid", fmt.Sprint(managerUID), "--protected-ports", "2222/tcp")
	for path, mode := range map[string]os.FileMode{filepath.Dir(v.dir): 0o755, v.dir: 0o755, v.socket(): 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// dialAs connects as another user. The kernel keeps the credentials of the
// thread that connects, which ends with its goroutine.
func (v *victims) dialAs(uid int) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		unchanged := ^uintptr(0)
		if _, _, code := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged); code != 0 {
			done <- result{err: code}
			return
		}
		conn, err := net.Dial("unix", v.socket())
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// send writes raw bytes as a user and returns the status and the error of the
// answer, if one comes.
func (v *victims) send(uid int, raw io.Reader) (int, helperapi.Error, error) {
	conn, err := v.dialAs(uid)
	if err != nil {
		return 0, helperapi.Error{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return 0, helperapi.Error{}, err
	}
	// The helper may answer and hang up before it has read everything.
	_, writeErr := io.Copy(conn, raw)
	if writeErr == nil {
		writeErr = conn.(*net.UnixConn).CloseWrite()
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, helperapi.Error{}, errors.Join(err, writeErr)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, helperapi.Error{}, err
	}
	var refused helperapi.Error
	// What the HTTP server itself refuses has a line of text for a body.
	if resp.StatusCode != http.StatusOK && json.Valid(body) {
		err = json.Unmarshal(body, &refused)
	}
	return resp.StatusCode, refused, err
}

func put(body string) string {
	return fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: helper\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", helperapi.PathNetwork, len(body), body)
}

func get(target string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: helper\r\nConnection: close\r\n\r\n"
}

// hostile is a request and what it must come to.
type hostile struct {
	uid int
	raw io.Reader
	// kind is that of the answer and of the audit line. Where the connection is
	// cut without an answer, cut says so.
	kind helperapi.Kind
	cut  bool
	// says is in the audit line.
	says string
}

// asks makes a request of the state in force with one change.
func (v *victims) asks(kind helperapi.Kind, says string, change func(*helperapi.Network)) hostile {
	n := wanted(v.ssh, v.recon)
	change(&n)
	return v.sends(kind, says, put(encode(v.t, n)))
}

func (v *victims) sends(kind helperapi.Kind, says, raw string) hostile {
	return hostile{uid: managerUID, raw: strings.NewReader(raw), kind: kind, says: says}
}

func encode(t testing.TB, n helperapi.Network) string {
	t.Helper()
	raw, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func ports(n int) []helperapi.Assignment {
	var all []helperapi.Assignment
	for i := range n {
		protocol := helperapi.TCP
		if i >= 65535 {
			protocol = helperapi.UDP
		}
		all = append(all, helperapi.Assignment{Port: helperapi.Port{Protocol: protocol, Number: uint16(i%65535 + 1)}, To: 2222})
	}
	return all
}

// wishes are requests that are well-formed, or nearly.
func (v *victims) wishes() map[string]hostile {
	type network = helperapi.Network
	bridge := func(kind helperapi.Kind, says, text string) hostile {
		return v.asks(kind, says, func(n *network) { n.Bridge.V4 = prefix(text) })
	}
	sandbox := func(kind helperapi.Kind, says string, claim helperapi.Sandbox) hostile {
		return v.asks(kind, says, func(n *network) { n.Services[0].Sandbox = claim })
	}
	static := func(kind helperapi.Kind, says, text string) hostile {
		return v.asks(kind, says, func(n *network) {
			n.Interface.Mode, n.Interface.Address = helperapi.ModeStatic, prefix(text)
		})
	}
	return map[string]hostile{
		"loopback as interface":       v.asks("denied", "started for eth0", func(n *network) { n.Interface.Name = "lo" }),
		"another sensor's bridge":     v.asks("denied", "started for eth0", func(n *network) { n.Interface.Name = "services-ffffff" }),
		"own bridge as interface":     v.asks("denied", "started for eth0", func(n *network) { n.Interface.Name = "services-a1b2c3" }),
		"interface is a path":         v.asks("invalid", "interface", func(n *network) { n.Interface.Name = "../../x" }),
		"interface is all":            v.asks("invalid", "interface", func(n *network) { n.Interface.Name = "all" }),
		"interface ends a string":     v.asks("invalid", "interface", func(n *network) { n.Interface.Name = `e"}drop` }),
		"interface is a pattern":      v.asks("denied", "started for eth0", func(n *network) { n.Interface.Name = "eth*" }),
		"network of the interface":    bridge("denied", "192.0.2.0/24", "192.0.2.0/24"),
		"network of another sensor":   bridge("conflict", "services-ffffff", v.other.String()),
		"half of another's network":   bridge("conflict", "services-ffffff", "10.77.0.128/25"),
		"around another's network":    bridge("conflict", "services-ffffff", "10.77.0.0/16"),
		"network of a route":          bridge("conflict", "10.88.0.0/16", "10.88.0.0/16"),
		"public network":              bridge("denied", "8.8.8.0/24", "8.8.8.0/24"),
		"all of 10":                   bridge("denied", "10.0.0.0/8", "10.0.0.0/8"),
		"everything":                  bridge("denied", "0.0.0.0/0", "0.0.0.0/0"),
		"loopback network":            bridge("denied", "127.0.0.0/24", "127.0.0.0/24"),
		"link-local network":          bridge("denied", "169.254.0.0/24", "169.254.0.0/24"),
		"multicast network":           bridge("denied", "224.0.0.0/24", "224.0.0.0/24"),
		"public IPv6 network":         v.asks("denied", "2001:db8", func(n *network) { n.Bridge.V6 = prefix("2001:db8:1::/64") }),
		"all of IPv6":                 v.asks("denied", "::/0", func(n *network) { n.Bridge.V6 = prefix("::/0") }),
		"address within the services": static("conflict", "overlaps", "10.10.10.7/24"),
		"address of the world":        static("denied", "/8 or smaller", "10.9.9.9/1"),
		"multicast address":           static("invalid", "224.0.0.5", "224.0.0.5/24"),
		"group as hardware address":   v.asks("invalid", "hardware address", func(n *network) { n.Interface.MAC = "ff:ff:ff:ff:ff:ff" }),
		"host name with an option":    v.asks("invalid", "host name", func(n *network) { n.Interface.Hostname = "a\nb" }),
		"all egress":                  v.asks("denied", "EGRESS", func(n *network) { n.Egress = helperapi.EgressAll }),
		"internet egress":             v.asks("denied", "EGRESS", func(n *network) { n.Egress = helperapi.EgressInternet }),
		"unknown egress":              v.asks("invalid", "egress", func(n *network) { n.Egress = "moon" }),
		"pid of a host process":       sandbox("denied", "is not of container", helperapi.Sandbox{ContainerID: v.ssh.ContainerID, PID: v.stranger}),
		"pid of the helper":           sandbox("denied", "is not of container", helperapi.Sandbox{ContainerID: v.ssh.ContainerID, PID: v.helper.Process.Pid}),
		"pid of init":                 sandbox("invalid", "pid 1", helperapi.Sandbox{ContainerID: v.ssh.ContainerID, PID: 1}),
		"negative pid":                sandbox("invalid", "pid -1", helperapi.Sandbox{ContainerID: v.ssh.ContainerID, PID: -1}),
		"pid beyond all":              sandbox("invalid", "pid", helperapi.Sandbox{ContainerID: v.ssh.ContainerID, PID: 1 << 30}),
		"pid that has ended":          sandbox("unavailable", "has ended", v.ended.Sandbox),
		"recycled pid":                sandbox("denied", "is not of container", helperapi.Sandbox{ContainerID: v.ended.ContainerID, PID: v.ssh.PID}),
		"pids exchanged": v.asks("denied", "is not of container", func(n *network) {
			n.Services[0].Sandbox.PID, n.Services[1].Sandbox.PID = v.recon.PID, v.ssh.PID
		}),
		"one pid twice":              v.asks("invalid", "of another service", func(n *network) { n.Services[1].Sandbox.PID = v.ssh.PID }),
		"one container twice":        v.asks("invalid", "of another service", func(n *network) { n.Services[1].Sandbox = v.ssh.Sandbox }),
		"container id is a path":     v.asks("invalid", "container id", func(n *network) { n.Services[0].Sandbox.ContainerID = "../../../etc" }),
		"service id is a rule":       v.asks("invalid", "service id", func(n *network) { n.Services[0].ID = "1; flush ruleset" }),
		"a port twice":               v.asks("invalid", "assigned to service", func(n *network) { n.Services[1].Ports = n.Services[0].Ports }),
		"port 0":                     v.asks("invalid", "port", func(n *network) { n.Services[0].Ports[0].Port.Number = 0 }),
		"to port 0":                  v.asks("invalid", "port 0", func(n *network) { n.Services[0].Ports[0].To = 0 }),
		"another protocol":           v.asks("invalid", "tcp or udp", func(n *network) { n.Services[0].Ports[0].Port.Protocol = "sctp" }),
		"too many ports":             v.asks("invalid", "port assignments", func(n *network) { n.Services[0].Ports = ports(helperapi.MaxPorts + 1) }),
		"65,536 ports":               v.asks("invalid", "too large", func(n *network) { n.Services[0].Ports = ports(65536) }),
		"too many services":          v.asks("invalid", "services", func(n *network) { n.Services = make([]helperapi.Service, helperapi.MaxServices+1) }),
		"two catch-alls":             v.asks("invalid", "catch-all", func(n *network) { n.Services[0].CatchAll = true }),
		"too many protected ports":   v.asks("invalid", "protected ports", func(n *network) { n.ProtectedPorts = protect(helperapi.MaxPorts + 1) }),
		"collector at port 0":        v.asks("invalid", "collector port", func(n *network) { n.Bridge.CollectorPort = 0 }),
		"a null":                     v.sends("invalid", "interface", put("null")),
		"a list":                     v.sends("invalid", "decode", put("[]")),
		"one field in two spellings": v.sends("denied", "started for eth0", put(strings.TrimSuffix(v.good(), "}")+`,"INTERFACE":{"name":"lo"}}`)),
	}
}

func protect(n int) []helperapi.Port {
	var all []helperapi.Port
	for _, a := range ports(n) {
		all = append(all, a.Port)
	}
	return all
}

func (v *victims) good() string { return encode(v.t, wanted(v.ssh, v.recon)) }

// bytes are requests that are none, or too much of one.
func (v *victims) bytes() map[string]hostile {
	field := func(text string) string {
		return put(strings.Replace(v.good(), `{"interface"`, "{"+text+`,"interface"`, 1))
	}
	huge := fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", helperapi.PathNetwork, 100<<20)
	endless := fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", helperapi.PathNetwork, 100<<20)
	return map[string]hostile{
		"a rule":              v.sends("invalid", "unknown field", field(`"rules":["accept"]`)),
		"a table":             v.sends("invalid", "unknown field", field(`"table":"filter"`)),
		"a bridge by name":    v.sends("invalid", "unknown field", put(strings.Replace(v.good(), `"bridge":{`, `"bridge":{"name":"docker0",`, 1))),
		"a path":              v.sends("invalid", "unknown field", put(strings.Replace(v.good(), `"sandbox":{`, `"sandbox":{"netns":"/proc/1/ns/net",`, 1))),
		"a command":           v.sends("invalid", "unknown field", put(strings.Replace(v.good(), `"mode":`, `"up":"/bin/sh","mode":`, 1))),
		"trailing data":       v.sends("invalid", "data after", put(v.good()+"{}")),
		"two networks":        v.sends("invalid", "data after", put(v.good()+v.good())),
		"half of a network":   v.sends("invalid", "decode", put(v.good()[:50])),
		"no body":             v.sends("invalid", "decode", put("")),
		"deep nesting":        v.sends("invalid", "decode", put(strings.Repeat("[", 500_000))),
		"port beyond 65535":   v.sends("invalid", "decode", put(strings.Replace(v.good(), `"number":22`, `"number":65558`, 1))),
		"100 MB":              {uid: managerUID, raw: io.MultiReader(strings.NewReader(huge), io.LimitReader(zeros{}, 100<<20)), kind: "invalid", says: "too large", cut: true},
		"100 MB in a chunk":   {uid: managerUID, raw: io.MultiReader(strings.NewReader(endless), io.LimitReader(zeros{}, 100<<20)), kind: "invalid", says: "too large", cut: true},
		"half a body":         v.sends("invalid", "read body", put(v.good())[:200]),
		"half a header":       {uid: managerUID, raw: strings.NewReader("PUT /v1/net"), kind: "invalid", says: "not a whole request", cut: true},
		"a huge header":       {uid: managerUID, raw: strings.NewReader("GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 64<<10)), kind: "invalid", says: "not a whole request", cut: true},
		"not HTTP":            {uid: managerUID, raw: strings.NewReader("\x16\x03\x01\x02\x00\x01\r\n\r\n"), kind: "invalid", says: "not a whole request", cut: true},
		"two lengths":         {uid: managerUID, raw: strings.NewReader("PUT /v1/network HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), kind: "invalid", says: "not a whole request", cut: true},
		"other method":        v.sends("invalid", "no such method", strings.Replace(put(v.good()), "PUT", "POST", 1)),
		"method of its own":   v.sends("invalid", "no such method", strings.Replace(put(v.good()), "PUT", "FLUSH", 1)),
		"other path":          v.sends("invalid", "no such method", get("/v1/rules")),
		"path to be cleaned":  v.sends("invalid", "no such method", get("/v1/x/../network")),
		"path with a query":   v.sends("invalid", "no such method", get("/v1/network?x=1")),
		"a file":              v.sends("invalid", "no such method", get("/../../etc/passwd")),
		"options of anything": v.sends("invalid", "no such method", "OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
		"a proxy":             v.sends("invalid", "no such method", "CONNECT 192.0.2.2:22 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
		"root writes":         {uid: 0, raw: strings.NewReader(put(v.good())), kind: "denied", says: "this user may not"},
	}
}

// TestNetnsHostileRequests sends what an attacker with the manager's rights, or
// another user, could send. Each leaves its line and changes nothing.
func TestNetnsHostileRequests(t *testing.T) {
	v := newVictims(t)
	if status, refused, err := v.send(managerUID, strings.NewReader(put(v.good()))); err != nil || status != http.StatusOK {
		t.Fatalf("good request: %d %+v %v", status, refused, err)
	}
	v.wantAttacksWork()
	before := hosttest.Snapshot(v.host)
	count := 0
	for _, table := range []map[string]hostile{v.wishes(), v.bytes()} {
		for name, c := range table {
			count++
			t.Run(name, func(t *testing.T) { v.wantRefused(t, c) })
		}
	}
	if count < 40 {
		t.Errorf("%d requests only", count)
	}
	t.Run("another user", v.anotherUser)
	t.Run("1,000 connections", v.manyConnections)
	v.wantUnchanged(before)
	v.wantAttacksWork()
	if err := v.end(syscall.SIGTERM); err != nil {
		t.Errorf("end: %v", err)
	}
}

func (v *victims) wantRefused(t *testing.T, c hostile) {
	t.Helper()
	read := len(v.stderr.String())
	status, refused, err := v.send(c.uid, c.raw)
	if status == http.StatusOK || !c.cut && (err != nil || refused.Kind != c.kind) {
		t.Errorf("answered with %d %+v, %v; want kind %s", status, refused, err, c.kind)
	}
	var line string
	until(t, "an audit line", func() bool {
		line = v.stderr.String()[read:]
		return strings.HasSuffix(line, "\n")
	})
	if strings.Count(line, "\n") != 1 || len(line) > 1500 {
		t.Errorf("audit lines %s, want a short one", line)
	}
	for _, part := range []string{
		`"refused request"`, fmt.Sprintf(`"uid":%d`, c.uid), fmt.Sprintf(`"pid":%d`, os.Getpid()), fmt.Sprintf(`"kind":"%s"`, c.kind), c.says,
	} {
		if !strings.Contains(line, part) {
			t.Errorf("no %s in audit line %s", part, line)
		}
	}
}

func (v *victims) anotherUser(t *testing.T) {
	read := len(v.stderr.String())
	if status, _, err := v.send(12345, strings.NewReader(get(helperapi.PathNetwork))); status != 0 || err == nil {
		t.Errorf("answered with %d, %v", status, err)
	}
	until(t, "an audit line", func() bool {
		line := v.stderr.String()[read:]
		return strings.Contains(line, "refused connection") && strings.Contains(line, `"uid":12345`)
	})
}

// manyConnections holds a thousand, and asks again once they have gone.
func (v *victims) manyConnections(t *testing.T) {
	read := len(v.stderr.String())
	var conns []net.Conn
	for range 1000 {
		conn, err := v.dialAs(managerUID)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	until(t, "an audit line", func() bool { return strings.Contains(v.stderr.String()[read:], "refused further connections") })
	open, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(v.helper.Process.Pid), "fd"))
	if err != nil || len(open) > 100 {
		t.Errorf("the helper has %d descriptors, %v", len(open), err)
	}
	for _, conn := range conns {
		conn.Close()
	}
	if status, refused, err := v.send(managerUID, strings.NewReader(get(helperapi.PathHealth))); err != nil || status != http.StatusOK {
		t.Errorf("afterwards: %d %+v %v", status, refused, err)
	}
}
