package services

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// TestNetnsSockets reads the tables of a process in another network namespace
// as a user who has no right over it.
func TestNetnsSockets(t *testing.T) {
	host := nettest.NewHost(t, "sockets")
	var tcp, tcp6 net.Listener
	var udp net.PacketConn
	var idle net.Conn
	err := host.Do(func() (err error) {
		if tcp, err = net.Listen("tcp4", "127.0.0.1:2222"); err != nil {
			return err
		}
		if tcp6, err = net.Listen("tcp6", "[::1]:2323"); err != nil {
			return err
		}
		if udp, err = net.ListenPacket("udp", ":161"); err != nil {
			return err
		}
		idle, err = net.Dial("tcp", "127.0.0.1:2222")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []interface{ Close() error }{tcp, tcp6, udp, idle} {
		t.Cleanup(func() { _ = c.Close() })
	}
	inside := exec.Command("sleep", "1000")
	if err := host.Start(inside); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = inside.Process.Kill()
		_ = inside.Wait()
	})
	found, err := readSockets("/proc", inside.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[helperapi.Port]bool{
		{Protocol: helperapi.TCP, Number: 2222}: true, {Protocol: helperapi.TCP, Number: 2323}: true, {Protocol: helperapi.UDP, Number: 161}: true,
		{Protocol: helperapi.TCP, Number: 161}: false, {Protocol: helperapi.UDP, Number: 2222}: false,
	} {
		if found.open[port] != want {
			t.Errorf("%s open: %v, want %v", port, found.open[port], want)
		}
	}
	if _, wait := found.unaccepted[waiting{2222, idle.LocalAddr().(*net.TCPAddr).AddrPort()}]; !wait || found.packets {
		t.Errorf("found %+v", found)
	}
	if _, err := tcp.Accept(); err != nil {
		t.Fatal(err)
	}
	if found, err = readSockets("/proc", inside.Process.Pid); err != nil || len(found.unaccepted) != 0 {
		t.Errorf("after accept: %+v, %v", found, err)
	}
	cat := exec.Command("cat", filepath.Join("/proc", "1", "net", "tcp"))
	cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 10001, Gid: 10001}}
	if out, err := cat.CombinedOutput(); err != nil {
		t.Errorf("without rights: %v: %s", err, out)
	}
}

func FuzzSocketTable(f *testing.F) {
	f.Add("   0: 0100007F:08AE 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 624 1 0 100 0 0 10 0")
	f.Add("   1: 00000000000000000000000001000000:0913 00000000000000000000000000000000:0000 07 0:0 0:0 0 0 0 0 0")
	f.Add("0: x:y z")
	f.Fuzz(func(t *testing.T, line string) {
		s := sockets{open: map[helperapi.Port]bool{}, unaccepted: map[waiting]bool{}}
		fields := strings.Fields(line)
		s.addTCP(fields)
		s.addUDP(fields)
		if len(s.open)+len(s.unaccepted)+s.dialling > 2 {
			t.Errorf("%d sockets in one line", len(s.open)+len(s.unaccepted)+s.dialling)
		}
	})
}

func TestSocketTableIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "7", "net")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	line := "0: 0100007F:08AE 0100007F:0001 02 0:0 0:0 0 0 0 1 1\n"
	if err := os.WriteFile(filepath.Join(dir, "tcp"), []byte(strings.Repeat(line, 2*maxSockets/len(line))), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := readSockets(filepath.Dir(filepath.Dir(dir)), 7)
	if err != nil || found.dialling == 0 || found.dialling > maxSockets/len(line)+1 {
		t.Errorf("%d sockets, %v", found.dialling, err)
	}
}
