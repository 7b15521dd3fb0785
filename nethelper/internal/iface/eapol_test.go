package iface

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// authority makes certificates for one test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.pem, _ = a.issue("test CA")
	return a
}

func (a *authority) issue(name string) (certPEM, keyPEM string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.cert == nil {
		a.key = key
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			a.t.Fatal(err)
		}
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

// Texts that would break out of a configuration where they are not escaped.
const (
	hostileUser     = `us er}#\x22={`
	hostilePassword = `p" network={ \x22 ä`
)

// serve8021X starts a real authenticator with an authentication server of its
// own at the router.
func serve8021X(t *testing.T, router *nettest.Host, ca *authority) {
	t.Helper()
	cert, key := ca.issue("server")
	dir := t.TempDir()
	users := strings.Join([]string{
		`"md5" MD5 "secret"`, `"client" TLS`, `"outer-peap" PEAP`, `"outer-ttls" TTLS`, `"peap" PEAP`, `"ttls" TTLS`,
		`"` + hostileUser + `" MD5 ` + hex.EncodeToString([]byte(hostilePassword)),
		`"peap" MSCHAPV2 "secret" [2]`, `"ttls" TTLS-MSCHAPV2 "secret" [2]`, "",
	}, "\n")
	files := map[string]string{
		"ca.pem": ca.pem, "cert.pem": cert, "key.pem": key, "users": users,
		"hostapd.conf": strings.NewReplacer("DIR", dir).Replace(strings.Join([]string{
			"interface=eth0", "driver=wired", "ieee8021x=1", "eap_server=1", "use_pae_group_addr=1", "eap_reauth_period=0",
			"eap_user_file=DIR/users", "ca_cert=DIR/ca.pem", "server_cert=DIR/cert.pem", "private_key=DIR/key.pem", "",
		}, "\n")),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, log := program(t, router, "hostapd", filepath.Join(dir, "hostapd.conf"))
	waitFor(t, log, "AP-ENABLED")
}

func authenticated(seen helperapi.InterfaceObserved) bool {
	return strings.Contains(seen.Note, "802.1X at eth0: authenticated")
}

func TestNetns8021X(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	clientCert, clientKey := ca.issue("client")
	strangerCert, strangerKey := other.issue("client")
	cases := map[string]struct {
		wish helperapi.EAPOL
		ok   func(helperapi.InterfaceObserved) bool
	}{
		"md5":                 {helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: "md5", Password: "secret"}, authenticated},
		"md5 wrong password":  {helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: "md5", Password: "wrong"}, hasProblem("refused; check identity")},
		"tls":                 {helperapi.EAPOL{Method: helperapi.EAPOLTLS, Identity: "client", CA: ca.pem, ClientCert: clientCert, ClientKey: clientKey}, authenticated},
		"tls of another CA":   {helperapi.EAPOL{Method: helperapi.EAPOLTLS, Identity: "client", CA: ca.pem, ClientCert: strangerCert, ClientKey: strangerKey}, hasProblem("refused; check identity")},
		"peap":                {helperapi.EAPOL{Method: helperapi.EAPOLPEAP, Identity: "peap", AnonymousIdentity: "outer-peap", Password: "secret", CA: ca.pem}, authenticated},
		"peap wrong password": {helperapi.EAPOL{Method: helperapi.EAPOLPEAP, Identity: "peap", Password: "wrong", CA: ca.pem}, hasProblem("refused; check identity")},
		"peap wrong server":   {helperapi.EAPOL{Method: helperapi.EAPOLPEAP, Identity: "peap", Password: "secret", CA: other.pem}, hasProblem("is not of the CA that is set")},
		"ttls":                {helperapi.EAPOL{Method: helperapi.EAPOLTTLS, Identity: "ttls", AnonymousIdentity: "outer-ttls", Password: "secret", CA: ca.pem}, authenticated},
		"hostile values":      {helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: hostileUser, Password: hostilePassword}, authenticated},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			host, router := lan(t, "hostapd", "wpa_supplicant")
			host.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
			before := hosttest.Snapshot(host)
			serve8021X(t, router, ca)
			k := startKeeper(t, host, testConfig(t))
			k.want(helperapi.Interface{Mode: helperapi.ModeNone, EAPOL: &c.wish})
			k.until("its end", c.ok)
			checkFiles(t, filepath.Join(k.cfg.Dir, "802.1x"))
			k.remove()
			if _, err := os.Stat(filepath.Join(k.cfg.Dir, "802.1x")); !os.IsNotExist(err) {
				t.Errorf("files stay: %v", err)
			}
			if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
				t.Errorf("the host differs:\n%s", diff)
			}
		})
	}
}

func checkFiles(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Errorf("files of the supplicant: %v, %v", entries, err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", entry.Name(), info.Mode(), err)
		}
	}
}

func TestNetns8021XWithoutAnAuthenticator(t *testing.T) {
	host, _ := lan(t, "wpa_supplicant")
	k := startKeeper(t, host, testConfig(t))
	k.want(helperapi.Interface{Mode: helperapi.ModeNone, EAPOL: &helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: "md5", Password: "secret"}})
	k.until("a problem", hasProblem("802.1X at eth0: not authenticated yet"))
}

func TestNetns8021XWithoutTheProgram(t *testing.T) {
	host, _ := lan(t)
	cfg := testConfig(t)
	cfg.Supplicant = "no-such-supplicant"
	k := startKeeper(t, host, cfg)
	k.want(helperapi.Interface{Mode: helperapi.ModeNone, EAPOL: &helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: "md5", Password: "secret"}})
	k.until("a problem", hasProblem("wpa_supplicant does not run"))
}

func TestSupplicantConfig(t *testing.T) {
	got, err := supplicantConfig("/run/nethelper/802.1x", &helperapi.EAPOL{
		Method: helperapi.EAPOLTTLS, Identity: hostileUser, AnonymousIdentity: "a\nb", Password: hostilePassword,
		CA: "x", ClientCert: "x", ClientKey: "x", ClientKeyPassword: "hash:1",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `ap_scan=0
network={
key_mgmt=IEEE8021X
eapol_flags=0
eap=TTLS
phase2="auth=MSCHAPV2"
identity=75732065727d235c7832323d7b
anonymous_identity=610a62
password=7022206e6574776f726b3d7b205c78323220c3a4
private_key_passwd=686173683a31
ca_cert="/run/nethelper/802.1x/ca.pem"
client_cert="/run/nethelper/802.1x/client.pem"
private_key="/run/nethelper/802.1x/client.key"
}
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := supplicantConfig(`/run/"`, &helperapi.EAPOL{Method: helperapi.EAPOLMD5}); err == nil {
		t.Error("a quote in the directory passes")
	}
}
