package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// newCert makes a self-signed certificate in PEM form.
func newCert(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hs.example.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestFirstAnswerOfAFreshArchiveChangesNothing(t *testing.T) {
	a, _, err := Open(copyFixture(t, "dhcp"))
	if err != nil {
		t.Fatal(err)
	}
	changed, err := a.Update(Changes{Values: []Value{
		{"server", "interval", ptr("1")}, {"network", "mode", ptr("0")}, {"network", "address", nil}, {"network", "dns", ptr("")},
		{"proxy", "mode", ptr("0")}, {"proxy", "port", nil}, {"eapol", "identity", nil},
	}, EAPOLCA: File{Present: true}})
	if changed || err != nil {
		t.Errorf("changed %v, %v", changed, err)
	}
}

func TestUpdateSurvivesARestart(t *testing.T) {
	path := copyFixture(t, "dhcp")
	a, _, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	tls, _ := open(t, "eap-tls")
	changed, err := a.Update(Changes{
		Values: []Value{
			{"server", "host", ptr("192.0.2.1")}, {"server", "port_https", ptr("8443")}, {"server", "interval", ptr("7")},
			{"general", "service_network", ptr("10.99.0.0/24")},
			{"network", "mode", ptr("1")}, {"network", "address", ptr("10.1.2.3")}, {"network", "netmask", ptr("255.255.255.0")},
			{"mac", "mode", ptr("1")}, {"mac", "address", ptr("02-00-00-00-00-01")},
			{"proxy", "mode", ptr("1")}, {"proxy", "host", ptr("proxy")}, {"proxy", "port", ptr("3128")}, {"proxy", "password", ptr(" ü=%#;\nb ")},
			{"eapol", "mode", ptr("2")}, {"eapol", "identity", ptr("id")},
		},
		EAPOLCA:         File{true, tls.file("eapol_ca.crt")},
		EAPOLClientCert: File{true, tls.file("eapol_client.crt")},
		EAPOLClientKey:  File{true, tls.file("eapol_client.key")},
	})
	if !changed || err != nil {
		t.Fatalf("changed %v, %v", changed, err)
	}
	want, err := a.Settings()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Save(); err != nil {
		t.Fatal(err)
	}
	b, notes, err := Open(filepath.Dir(path))
	if err != nil || len(notes) > 0 {
		t.Fatal(notes, err)
	}
	got, err := b.Settings()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, netipValues, cmp.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) })); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	if got.Server.Host != "192.0.2.1" || got.Interface.MAC != "02:00:00:00:00:01" || got.Proxy.Password != "ü=%#;\nb" || got.EAPOL.ClientKey == nil {
		t.Errorf("got %+v", got)
	}
	if read := configparser(t, []string{b.Text()}); !cmp.Equal(read[0], values(b.doc)) {
		t.Errorf("configparser reads %v", read[0])
	}
	if changed, err := b.Update(Changes{EAPOLCA: File{Present: true}, Values: []Value{{"eapol", "mode", ptr("0")}}}); !changed || err != nil {
		t.Errorf("removal: %v, %v", changed, err)
	}
	if b.file("eapol_ca.crt") != nil || b.text("eapol", "ca_cert") != "" {
		t.Error("the server's wish to remove a certificate was ignored")
	}
}

func TestUpdateKeepsWhatIsValid(t *testing.T) {
	a, _ := open(t, "static")
	changed, err := a.Update(Changes{
		Values: []Value{
			{"network", "address", ptr("10.1.2.4")}, {"network", "netmask", ptr("255.0.255.0")},
			{"server", "interval", ptr("9")},
			{"proxy", "mode", ptr("1")}, {"proxy", "host", ptr("x y")},
			{"mac", "address", ptr("a\n[b]")},
		},
		ServerChain: File{true, []byte("no certificate")},
	})
	if !changed {
		t.Error("the valid part was not taken over")
	}
	for _, want := range []string{"network.netmask", "proxy.host", "server.certfile"} {
		if !matches(err, want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	s, err := a.Settings()
	if err != nil {
		t.Fatal(err)
	}
	if s.Server.Interval != 9*time.Minute || s.Interface.Address.String() != "10.1.2.3/24" || s.Proxy != nil || len(s.Server.Chain) != 2 {
		t.Errorf("settings %+v", s)
	}
}

func TestChangeOverOfTheServersCertificate(t *testing.T) {
	path := copyFixture(t, "dhcp")
	a, _, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	old := a.Fingerprints().Server
	next := newCert(t)
	if changed, err := a.Update(Changes{ServerChain: File{true, next}, Served: old}); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if err := a.Save(); err != nil {
		t.Fatal(err)
	}
	if a, _, err = Open(path); err != nil {
		t.Fatal(err)
	}
	s, err := a.Settings()
	if err != nil || len(s.Server.Chain) != 1 || len(s.Server.Previous) != 2 || len(s.Server.Trust()) != 3 {
		t.Fatalf("both must be trusted: %d, %d, %v", len(s.Server.Chain), len(s.Server.Previous), err)
	}
	if a.Fingerprints().Server == old {
		t.Error("the server would send its certificate for ever")
	}
	if changed, _ := a.Update(Changes{Served: old}); changed {
		t.Error("the old certificate was dropped while it is in use")
	}
	if changed, _ := a.Update(Changes{Served: Fingerprint(s.Server.Chain[0])}); !changed {
		t.Error("the old certificate was kept")
	}
	if s, err = a.Settings(); err != nil || len(s.Server.Previous) != 0 {
		t.Errorf("previous %d, %v", len(s.Server.Previous), err)
	}
}

func TestSaveKeepsOwnerAndHidesFromOthers(t *testing.T) {
	path := copyFixture(t, "dhcp")
	if os.Getuid() == 0 {
		if err := os.Chown(path, 12345, 23456); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	before := owner(t, path)
	// A save that was interrupted must not get into the way.
	stale := filepath.Join(filepath.Dir(path), ".s1.tar.gz.new")
	if err := os.WriteFile(stale, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, _, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Save(); err != nil {
		t.Fatal(err)
	}
	if after := owner(t, path); after != before {
		t.Errorf("owner %v, was %v", after, before)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("%s is still there", stale)
	}
	if _, _, err := Open(filepath.Dir(path)); err != nil {
		t.Error(err)
	}
}

func TestSaveThatFailsKeepsTheOldFile(t *testing.T) {
	path := copyFixture(t, "dhcp")
	a, _, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SaveTo(filepath.Join(filepath.Dir(path), "gone", "s1.tar.gz")); err == nil {
		t.Error("saved to nowhere")
	}
	// A directory in the place of the temporary file is like a disk that fails.
	if err := os.MkdirAll(filepath.Join(filepath.Dir(path), ".s1.tar.gz.new", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.Save(); !matches(err, "save configuration archive") {
		t.Errorf("error %v", err)
	}
	if _, _, err := Open(path); err != nil {
		t.Errorf("the old archive is damaged: %v", err)
	}
}

type ids struct{ uid, gid uint32 }

func owner(t *testing.T, path string) ids {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no owner")
	}
	return ids{stat.Uid, stat.Gid}
}
