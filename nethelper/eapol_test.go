package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// TestNetns8021XConfined authenticates by the helper as it runs: without most
// capabilities and below its seccomp filter, which wpa_supplicant inherits. Each
// method goes through all that it needs, and so does an end by a kill.
func TestNetns8021XConfined(t *testing.T) {
	nettest.Need(t, "hostapd", "wpa_supplicant")
	ca := hosttest.NewAuthority(t)
	cert, key := ca.Issue("client")
	wishes := []struct {
		name  string
		wish  helperapi.EAPOL
		works bool
	}{
		{"md5", helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: "md5", Password: "secret"}, true},
		{"tls", helperapi.EAPOL{Method: helperapi.EAPOLTLS, Identity: "client", CA: ca.PEM, ClientCert: cert, ClientKey: key}, true},
		{"peap", helperapi.EAPOL{Method: helperapi.EAPOLPEAP, Identity: "peap", AnonymousIdentity: "outer-peap", Password: "secret", CA: ca.PEM}, true},
		{"ttls", helperapi.EAPOL{Method: helperapi.EAPOLTTLS, Identity: "ttls", AnonymousIdentity: "outer-ttls", Password: "secret", CA: ca.PEM}, true},
		{"hostile values", helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: hosttest.HostileUser, Password: hosttest.HostilePassword}, true},
		// The last one: hostapd hears nobody for a minute then.
		{"wrong password", helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: "md5", Password: "wrong"}, false},
	}
	b := newBench(t)
	hosttest.Authenticator(t, b.attacker, ca)
	before := hosttest.Snapshot(b.host)
	ssh, recon := b.twoHoneypots()
	b.start()
	for _, w := range wishes {
		n := wanted(ssh, recon)
		n.Interface.EAPOL = &w.wish
		b.put(n)
		var seen helperapi.InterfaceObserved
		until(t, w.name, func() bool {
			seen = b.get().Interface
			if w.works {
				return strings.Contains(seen.Note, "802.1X at eth0: authenticated") && seen.Problem == ""
			}
			return strings.Contains(seen.Problem, "refused; check identity")
		})
		b.wantAttacksWork()
		status := b.supplicant()
		if !strings.Contains(status, "Seccomp:\t2") || !strings.Contains(status, "NoNewPrivs:\t1") {
			t.Errorf("wpa_supplicant is not confined:\n%s", status)
		}
	}
	_ = b.end(syscall.SIGKILL)
	b.start()
	b.wantAttacksWork()
	if err := b.end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	b.wantUnchanged(before)
}

// supplicant is what the kernel says of the helper's wpa_supplicant.
func (b *bench) supplicant() string {
	b.t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, path := range found {
		raw, err := os.ReadFile(path)
		text := string(raw)
		if err == nil && strings.HasPrefix(text, "Name:\twpa_supplicant\n") && strings.Contains(text, fmt.Sprintf("\nPPid:\t%d\n", b.helper.Process.Pid)) {
			return text
		}
	}
	b.t.Error("no wpa_supplicant of the helper")
	return ""
}
