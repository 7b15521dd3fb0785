package helperapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

// testPEM returns a certificate with its key.
func testPEM(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

func TestValidateEAPOL(t *testing.T) {
	cert, key := testPEM(t)
	cases := map[string]struct {
		change func(*EAPOL)
		ok     bool
	}{
		"md5":                  {func(*EAPOL) {}, true},
		"peap":                 {func(e *EAPOL) { e.Method, e.AnonymousIdentity, e.CA = EAPOLPEAP, "x", cert+cert }, true},
		"tls":                  {func(e *EAPOL) { *e = EAPOL{Method: EAPOLTLS, Identity: "x", ClientCert: cert, ClientKey: key} }, true},
		"quotes and umlauts":   {func(e *EAPOL) { e.Identity, e.Password = `a"\b`, "päß€" }, true},
		"text before":          {func(e *EAPOL) { e.CA = "subject=x\n" + cert }, true},
		"no method":            {func(e *EAPOL) { e.Method = "" }, false},
		"unknown method":       {func(e *EAPOL) { e.Method = "leap" }, false},
		"no identity":          {func(e *EAPOL) { e.Identity = "" }, false},
		"no password":          {func(e *EAPOL) { e.Password = "" }, false},
		"line break":           {func(e *EAPOL) { e.Identity = "a\n}" }, false},
		"line break of C1":     {func(e *EAPOL) { e.Identity = "a\u0085b" }, false},
		"no UTF-8":             {func(e *EAPOL) { e.Password = "\xff" }, false},
		"long":                 {func(e *EAPOL) { e.AnonymousIdentity = strings.Repeat("x", 256) }, false},
		"nul in key password":  {func(e *EAPOL) { e.ClientKeyPassword = "a\x00" }, false},
		"tls without key":      {func(e *EAPOL) { *e = EAPOL{Method: EAPOLTLS, Identity: "x", ClientCert: cert} }, false},
		"path as CA":           {func(e *EAPOL) { e.CA = "/etc/shadow" }, false},
		"engine as key":        {func(e *EAPOL) { e.ClientKey = "pkcs11:object=x" }, false},
		"key as CA":            {func(e *EAPOL) { e.CA = key }, false},
		"key among CAs":        {func(e *EAPOL) { e.CA = cert + key }, false},
		"certificate as key":   {func(e *EAPOL) { e.ClientKey = cert }, false},
		"two keys":             {func(e *EAPOL) { e.ClientKey = key + key }, false},
		"broken certificate":   {func(e *EAPOL) { e.CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }, false},
		"too many":             {func(e *EAPOL) { e.CA = strings.Repeat(cert, maxChain+1) }, false},
		"too long certificate": {func(e *EAPOL) { e.CA = cert + strings.Repeat(" ", maxPEM) }, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := sample()
			n.Interface.EAPOL = &EAPOL{Method: EAPOLMD5, Identity: "user", Password: "secret"}
			c.change(n.Interface.EAPOL)
			if err := n.Validate(); !c.ok {
				wantInvalid(t, err)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEAPOLShowsNoSecret(t *testing.T) {
	e := &EAPOL{Method: EAPOLMD5, Identity: "user", Password: "secret", ClientKeyPassword: "secret", ClientKey: "secret"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, Interface{EAPOL: e}.EAPOL); strings.Contains(text, "secret") || !strings.Contains(text, "user") {
			t.Errorf("%s: %s", format, text)
		}
	}
}

func FuzzPEM(f *testing.F) {
	cert, key := testPEM(f)
	f.Add(cert)
	f.Add(key)
	f.Add(cert + key)
	f.Add("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		if out, err := CertificatePEM(text); err == nil {
			if again, err := CertificatePEM(string(out)); err != nil || string(again) != string(out) {
				t.Errorf("certificates change when read again: %v", err)
			}
		}
		if out, err := KeyPEM(text); err == nil {
			if again, err := KeyPEM(string(out)); err != nil || string(again) != string(out) {
				t.Errorf("key changes when read again: %v", err)
			}
		}
	})
}
