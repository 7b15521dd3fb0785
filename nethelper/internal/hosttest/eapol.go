package hosttest

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/shared/nettest"
)

// Authority makes certificates for one test.
type Authority struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	// PEM is its own certificate.
	PEM string
}

// NewAuthority returns one with a certificate of its own.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t}
	a.PEM, _ = a.Issue("test CA")
	return a
}

// Issue makes a certificate for a client or a server, and its key.
func (a *Authority) Issue(name string) (certPEM, keyPEM string) {
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
	HostileUser     = `us er}#\x22={`
	HostilePassword = `p" network={ \x22 ä` // #nosec G101 -- of a test
)

// Authenticator starts hostapd with an authentication server of its own at eth0
// of the router, until the test ends. Users are md5, client (TLS), peap and ttls, with
// the password "secret", and HostileUser.
func Authenticator(t testing.TB, router *nettest.Host, ca *Authority) {
	t.Helper()
	cert, key := ca.Issue("server")
	dir := t.TempDir()
	users := strings.Join([]string{
		`"md5" MD5 "secret"`, `"client" TLS`, `"outer-peap" PEAP`, `"outer-ttls" TTLS`, `"peap" PEAP`, `"ttls" TTLS`,
		`"` + HostileUser + `" MD5 ` + hex.EncodeToString([]byte(HostilePassword)),
		`"peap" MSCHAPV2 "secret" [2]`, `"ttls" TTLS-MSCHAPV2 "secret" [2]`, "",
	}, "\n")
	files := map[string]string{
		"ca.PEM": ca.PEM, "cert.pem": cert, "key.pem": key, "users": users,
		"hostapd.conf": strings.NewReplacer("DIR", dir).Replace(strings.Join([]string{
			"interface=eth0", "driver=wired", "ieee8021x=1", "eap_server=1", "use_pae_group_addr=1", "eap_reauth_period=0",
			"eap_user_file=DIR/users", "ca_cert=DIR/ca.PEM", "server_cert=DIR/cert.pem", "private_key=DIR/key.pem", "",
		}, "\n")),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hostapd := exec.CommandContext(context.Background(), "hostapd", filepath.Join(dir, "hostapd.conf"))
	out, err := hostapd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := router.Start(hostapd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = hostapd.Process.Kill()
		_ = hostapd.Wait()
	})
	said := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said += lines.Text() + "\n"
		if strings.Contains(lines.Text(), "AP-ENABLED") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return
		}
	}
	t.Fatalf("hostapd does not start:\n%s", said)
}
