package helperapi

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// EAPOL is how the interface identifies itself to its switch (IEEE 802.1X).
type EAPOL struct {
	Method EAPOLMethod `json:"method"`
	// Identity is the user name; with a method that has a tunnel it goes inside,
	// and AnonymousIdentity, when set, in the clear before.
	Identity          string `json:"identity"`
	AnonymousIdentity string `json:"anonymous_identity,omitempty"`
	// Password is for all methods but EAPOLTLS.
	Password string `json:"password,omitempty"`
	// CA are the certificates, in PEM, that the other side's must go back to, or
	// "": then any is taken.
	CA string `json:"ca,omitempty"`
	// ClientCert and ClientKey are in PEM, and for EAPOLTLS. The key may be
	// encrypted with ClientKeyPassword.
	ClientCert        string `json:"client_cert,omitempty"`
	ClientKey         string `json:"client_key,omitempty"`
	ClientKeyPassword string `json:"client_key_password,omitempty"`
}

// EAPOLMethod is a method of authentication.
type EAPOLMethod string

// The methods that a server can set. PEAP and TTLS use MSCHAPv2 in their tunnel.
const (
	EAPOLMD5  EAPOLMethod = "md5"
	EAPOLTLS  EAPOLMethod = "tls"
	EAPOLPEAP EAPOLMethod = "peap"
	EAPOLTTLS EAPOLMethod = "ttls"
)

// Limits of the parts of EAPOL, in bytes. Texts of the server have at most 255.
const (
	maxText  = 255
	maxPEM   = 64 << 10
	maxChain = 16
)

// String names method and identity, and no secret.
func (e *EAPOL) String() string {
	if e == nil {
		return "no 802.1X"
	}
	return fmt.Sprintf("802.1X %s as %q", e.Method, e.Identity)
}

// GoString is String, so that no way of printing shows a secret.
func (e *EAPOL) GoString() string { return e.String() }

func (e *EAPOL) validate(iface string) error {
	texts := []struct{ name, text string }{
		{"identity", e.Identity}, {"anonymous identity", e.AnonymousIdentity},
		{"password", e.Password}, {"password of the client key", e.ClientKeyPassword},
	}
	for _, t := range texts {
		if len(t.text) > maxText || !utf8.ValidString(t.text) || strings.ContainsFunc(t.text, unicode.IsControl) {
			return invalid("interface %s: 802.1X: %s has control characters or more than %d bytes", iface, t.name, maxText)
		}
	}
	if e.Identity == "" {
		return invalid("interface %s: 802.1X: no identity", iface)
	}
	if err := e.validateMethod(iface); err != nil {
		return err
	}
	for name, text := range map[string]string{"CA": e.CA, "client certificate": e.ClientCert} {
		if _, err := CertificatePEM(text); text != "" && err != nil {
			return invalid("interface %s: 802.1X: %s: %v", iface, name, err)
		}
	}
	if _, err := KeyPEM(e.ClientKey); e.ClientKey != "" && err != nil {
		return invalid("interface %s: 802.1X: client key: %v", iface, err)
	}
	return nil
}

func (e *EAPOL) validateMethod(iface string) error {
	switch e.Method {
	case EAPOLTLS:
		if e.ClientCert == "" || e.ClientKey == "" {
			return invalid("interface %s: 802.1X: tls wants a client certificate with its key", iface)
		}
	case EAPOLMD5, EAPOLPEAP, EAPOLTTLS:
		if e.Password == "" {
			return invalid("interface %s: 802.1X: %s wants a password", iface, e.Method)
		}
	default:
		return invalid("interface %s: 802.1X method %.20q: want md5, tls, peap or ttls", iface, e.Method)
	}
	return nil
}

// CertificatePEM returns the certificates of a text and nothing else of it. It
// is an error when there is none, when one cannot be read, and when something
// other than certificates is among them.
func CertificatePEM(text string) ([]byte, error) {
	blocks, err := decodePEM(text)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block %.40q among certificates", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	return out, nil
}

// KeyPEM returns the one private key of a text and nothing else of it. It may be
// encrypted, so only its form is looked at.
func KeyPEM(text string) ([]byte, error) {
	blocks, err := decodePEM(text)
	if err != nil {
		return nil, err
	}
	if len(blocks) != 1 || !strings.HasSuffix(blocks[0].Type, "PRIVATE KEY") {
		return nil, errors.New("want one private key, and nothing else, in PEM form")
	}
	out := pem.EncodeToMemory(blocks[0])
	if out == nil {
		return nil, errors.New("the PEM block has impossible headers")
	}
	return out, nil
}

func decodePEM(text string) ([]*pem.Block, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("more than %d bytes", maxPEM)
	}
	var blocks []*pem.Block
	for rest := []byte(text); len(blocks) <= maxChain; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	switch {
	case len(blocks) == 0:
		return nil, errors.New("nothing in PEM form")
	case len(blocks) > maxChain:
		return nil, fmt.Errorf("more than %d PEM blocks", maxChain)
	}
	return blocks, nil
}
