package core

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

func tcp(number uint16) helperapi.Port {
	return helperapi.Port{Protocol: helperapi.TCP, Number: number}
}

func TestConflictsNameTheProgram(t *testing.T) {
	sshd, other := Listener{Everywhere: true, inode: 1}, Listener{inode: 2}
	f := newFakeHost()
	c := f.core(t)
	f.programs = map[Listener]string{sshd: "sshd (pid 812)"}
	f.shown = []helperapi.Conflict{
		{Port: tcp(9000), Service: "1", Winner: "host", Reason: "seen."},
		{Port: tcp(80), Service: "1", Winner: "host", Reason: "the listener has ended."},
	}
	f.listeners = map[helperapi.Port]Listener{tcp(1000): sshd, tcp(1001): other, tcp(9000): other, tcp(7): sshd}
	got := mustApply(t, c, wanted("ab")).Conflicts
	if len(got) != 2 || got[0].Port != tcp(1000) || got[0].Winner != "host" || got[1].Port != tcp(9000) || got[1].Reason != "seen." {
		t.Fatalf("conflicts %+v, want that of 1000, nobody has tried, and the one seen at 9000", got)
	}
	if !strings.HasSuffix(got[0].Reason, "The program is sshd (pid 812).") {
		t.Errorf("reason %q", got[0].Reason)
	}
	f.published = []helperapi.Conflict{{Port: tcp(1000), Service: "1", Winner: "host", Reason: "published."}}
	if got := mustApply(t, c, wanted("ab")).Conflicts; len(got) != 2 || got[0].Reason != "published." {
		t.Errorf("conflicts %+v, want the published port once", got)
	}
	f.listeners, f.published = nil, nil
	if got := mustApply(t, c, wanted("ab")).Conflicts; len(got) != 0 {
		t.Errorf("conflicts %+v after the listeners ended", got)
	}
}

func TestNetnsListenersOfTheHost(t *testing.T) {
	h := nettest.NewHost(t, "host")
	var everywhere, local net.Listener
	var datagrams net.PacketConn
	err := h.Do(func() (err error) {
		if everywhere, err = net.Listen("tcp", ":22"); err != nil {
			return err
		}
		if local, err = net.Listen("tcp4", "127.0.0.1:80"); err != nil {
			return err
		}
		datagrams, err = net.ListenPacket("udp4", "0.0.0.0:161")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _, _ = everywhere.Close(), local.Close(), datagrams.Close() }()
	var found map[helperapi.Port]Listener
	var names map[Listener]string
	err = h.Do(func() (err error) {
		if found, err = (Kernel{}).Listeners(); err != nil {
			return err
		}
		names = Kernel{}.Programs([]Listener{found[tcp(22)]})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[helperapi.Port]bool{}
	for port, l := range found {
		got[port] = l.Everywhere
	}
	want := map[helperapi.Port]bool{tcp(22): true, tcp(80): false, {Protocol: helperapi.UDP, Number: 161}: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if name := names[found[tcp(22)]]; !strings.HasPrefix(name, strings.TrimSpace(string(comm))+" (pid ") {
		t.Errorf("program %q, want %s", name, comm)
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("evil\x1b[31m name\n"); got != "evil_[31m_name" {
		t.Errorf("got %q", got)
	}
}

func FuzzReadSockets(f *testing.F) {
	f.Add("  sl  local_address rem_address   st\n   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1\n")
	f.Add("0: :0 : 0A 0 0 0 0 0 x")
	f.Fuzz(func(t *testing.T, table string) {
		found := map[helperapi.Port]Listener{}
		_ = readSockets(strings.NewReader(table), helperapi.TCP, found)
		for port := range found {
			if port.Number == 0 {
				t.Errorf("port 0 of %q", table)
			}
		}
	})
}
