package config

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Names of members as the server writes them, and our own for the chain before.
const (
	serverCertFile   = "server-cert.pem"
	previousCertFile = "server-cert-previous.pem"
	eapolCAFile      = "eapol_ca.crt"
	eapolCertFile    = "eapol_client.crt"
	eapolKeyFile     = "eapol_client.key"
)

// maxChain is more certificates than any chain has.
const maxChain = 16

// EAPOLMode is the method of 802.1X, numbered as the server does.
type EAPOLMode int

// The methods.
const (
	EAPOLMD5  EAPOLMode = 1
	EAPOLTLS  EAPOLMode = 2
	EAPOLPEAP EAPOLMode = 3
	EAPOLTTLS EAPOLMode = 4
)

// EAPOL is what 802.1X wants. Texts have no control characters.
type EAPOL struct {
	Mode         EAPOLMode
	Identity     string
	AnonIdentity string
	Password     Secret
	// CA, ClientCert and ClientKey are PEM, or nil.
	CA, ClientCert, ClientKey []byte
	ClientKeyPassword         Secret
}

// parseCerts reads a PEM file that holds certificates and nothing else.
func parseCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block %.40q among certificates", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		if certs = append(certs, cert); len(certs) > maxChain {
			return nil, fmt.Errorf("more than %d certificates", maxChain)
		}
		data = rest
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in PEM form")
	}
	return certs, nil
}

// Fingerprint is SHA-256 of a certificate in lower-case hex, as the server
// compares it.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// Fingerprints are SHA-256 of the first certificates of the archive's files,
// lower-case hex, or "" where there is no such file. By these the server sees
// which ones it has to send.
type Fingerprints struct {
	Server, EAPOLCA, EAPOLClient string
}

// Fingerprints tells which certificates the archive has.
func (a *Archive) Fingerprints() Fingerprints {
	of := func(section, key string) string {
		certs, err := parseCerts(a.file(a.text(section, key)))
		if err != nil {
			return "" // what cannot be read should be sent again
		}
		return Fingerprint(certs[0])
	}
	return Fingerprints{Server: of("server", "certfile"), EAPOLCA: of("eapol", "ca_cert"), EAPOLClient: of("eapol", "client_cert")}
}

func (a *Archive) parseChain(s *Settings) error {
	name, err := a.need("server", "certfile")
	if err != nil {
		return err
	}
	data := a.file(name)
	if data == nil {
		return wrong("server", "certfile", name, "the name of a file in the archive")
	}
	if s.Server.Chain, err = parseCerts(data); err != nil {
		return fmt.Errorf("server.certfile: %s: %w; %s", name, err, remedy)
	}
	// Ours alone: when it is damaged, the newest chain is all there is.
	s.Server.Previous, _ = parseCerts(a.file(previousCertFile))
	return nil
}

func (a *Archive) parseEAPOL(s *Settings) error {
	mode, err := a.mode("eapol", int(EAPOLTTLS))
	if err != nil || mode == 0 {
		return err
	}
	e := &EAPOL{Mode: EAPOLMode(mode), AnonIdentity: a.text("eapol", "anon_identity"),
		Password:          Secret(a.text("eapol", "password")),
		ClientKeyPassword: Secret(a.text("eapol", "client_key_password"))}
	var errs [5]error
	e.Identity, errs[0] = a.need("eapol", "identity")
	e.CA, errs[1] = a.eapolFile("ca_cert", false)
	e.ClientCert, errs[2] = a.eapolFile("client_cert", e.Mode == EAPOLTLS)
	e.ClientKey, errs[3] = a.eapolFile("client_key", e.Mode == EAPOLTLS)
	errs[4] = e.checkTexts()
	s.EAPOL = e
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if err := check(helperapi.Interface{Mode: helperapi.ModeNone, EAPOL: e.Wanted()}); err != nil {
		return fmt.Errorf("section eapol: %w; %s", err, remedy)
	}
	return nil
}

// Wanted is what the helper is to do for it.
func (e *EAPOL) Wanted() *helperapi.EAPOL {
	if e == nil {
		return nil
	}
	methods := map[EAPOLMode]helperapi.EAPOLMethod{
		EAPOLMD5: helperapi.EAPOLMD5, EAPOLTLS: helperapi.EAPOLTLS, EAPOLPEAP: helperapi.EAPOLPEAP, EAPOLTTLS: helperapi.EAPOLTTLS,
	}
	return &helperapi.EAPOL{
		Method: methods[e.Mode], Identity: e.Identity, AnonymousIdentity: e.AnonIdentity, Password: string(e.Password),
		CA: string(e.CA), ClientCert: string(e.ClientCert), ClientKey: string(e.ClientKey),
		ClientKeyPassword: string(e.ClientKeyPassword),
	}
}

// checkTexts refuses what could end a line in the supplicant's configuration.
func (e *EAPOL) checkTexts() error {
	texts := map[string]string{"identity": e.Identity, "anon_identity": e.AnonIdentity,
		"password": string(e.Password), "client_key_password": string(e.ClientKeyPassword)}
	for _, key := range eapolKeys {
		text := texts[key]
		if len(text) > 255 || strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			return fmt.Errorf("eapol.%s has control characters or more than 255 bytes: %s", key, remedy)
		}
	}
	if e.Mode != EAPOLTLS && e.Password == "" {
		return fmt.Errorf("eapol.password is unset: %s", remedy)
	}
	return nil
}

// eapolFile returns a file of 802.1X; a key may be encrypted, so that of it
// only the PEM form is checked.
func (a *Archive) eapolFile(key string, needed bool) ([]byte, error) {
	name := a.text("eapol", key)
	if name == "" {
		if needed {
			return nil, fmt.Errorf("eapol.%s is unset: %s", key, remedy)
		}
		return nil, nil
	}
	data := a.file(name)
	if data == nil {
		return nil, wrong("eapol", key, name, "the name of a file in the archive")
	}
	if key == "client_key" {
		if block, _ := pem.Decode(data); block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, wrong("eapol", key, name, "a file with a private key in PEM form")
		}
		return data, nil
	}
	if _, err := parseCerts(data); err != nil {
		return nil, fmt.Errorf("eapol.%s: %s: %w; %s", key, name, err, remedy)
	}
	return data, nil
}
