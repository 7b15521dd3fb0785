// Package pki makes the certificates of the development server: an authority of
// its own and a certificate for one name. A certificate can be announced to the
// sensors before it is served, as an operator does who replaces one.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// validFor is how long a certificate is valid.
const validFor = 2 * 365 * 24 * time.Hour

// pair is a certificate with its key, in PEM.
type pair struct {
	Cert, Key string
}

// content is what is kept on disk.
type content struct {
	Authority pair
	// Chains are leaf and authority in one text.
	Serving, Announced pair
}

// Store holds the certificates of one server name.
type Store struct {
	name, path string

	mu      sync.Mutex
	content content
	serving *tls.Certificate
}

// Open reads the certificates of a directory, or makes the first ones.
func Open(dir, name string) (*Store, error) {
	s := &Store{name: name, path: filepath.Join(dir, "pki.json")}
	text, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := s.Renew(true); err != nil {
			return nil, err
		}
		return s, s.Serve()
	case err != nil:
		return nil, fmt.Errorf("open certificates: %w", err)
	}
	if err := json.Unmarshal(text, &s.content); err != nil {
		return nil, fmt.Errorf("open certificates: %s: %w", s.path, err)
	}
	return s, s.load()
}

// Chain is what is announced: the certificate and its authority, in PEM.
func (s *Store) Chain() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.Announced.Cert
}

// Authority is the certificate of the announced authority, in PEM.
func (s *Store) Authority() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.Authority.Cert
}

// Fingerprints of the certificates that are served and announced.
func (s *Store) Fingerprints() (serving, announced string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Fingerprint(s.content.Serving.Cert), Fingerprint(s.content.Announced.Cert)
}

// Fingerprint is the SHA-256 of the first certificate of a PEM text, in lower
// case hex; "" when there is none.
func Fingerprint(text string) string {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return ""
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

// TLS returns a configuration that follows what is served.
func (s *Store) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.serving, nil
		},
	}
}

// Renew makes a certificate and announces it; with a new authority when asked.
func (s *Store) Renew(newAuthority bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	authority := s.content.Authority
	if newAuthority || authority.Cert == "" {
		var err error
		if authority, err = makeAuthority(); err != nil {
			return err
		}
	}
	leaf, err := makeLeaf(authority, s.name)
	if err != nil {
		return err
	}
	s.content.Authority, s.content.Announced = authority, leaf
	return s.save()
}

// Serve serves what is announced.
func (s *Store) Serve() error {
	s.mu.Lock()
	s.content.Serving = s.content.Announced
	err := s.save()
	s.mu.Unlock()
	return errors.Join(err, s.load())
}

func (s *Store) load() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cert, err := tls.X509KeyPair([]byte(s.content.Serving.Cert), []byte(s.content.Serving.Key))
	if err != nil {
		return fmt.Errorf("load certificate: %w", err)
	}
	s.serving = &cert
	return nil
}

func (s *Store) save() error {
	text, err := json.MarshalIndent(s.content, "", "  ")
	if err != nil {
		return fmt.Errorf("save certificates: %w", err)
	}
	if err := os.WriteFile(s.path+".new", text, 0o600); err != nil {
		return fmt.Errorf("save certificates: %w", err)
	}
	if err := os.Rename(s.path+".new", s.path); err != nil {
		return fmt.Errorf("save certificates: %w", err)
	}
	return nil
}

func template(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	// Sensors boot with clocks that are behind.
	begin := time.Now().Add(-24 * time.Hour)
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: begin, NotAfter: begin.Add(validFor), BasicConstraintsValid: true,
	}, nil
}

func makeAuthority() (pair, error) {
	t, err := template("HoneySens")
	if err != nil {
		return pair{}, err
	}
	t.IsCA, t.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("make key: %w", err)
	}
	return encode(t, t, key, key, "")
}

func makeLeaf(authority pair, name string) (pair, error) {
	issuer, err := tls.X509KeyPair([]byte(authority.Cert), []byte(authority.Key))
	if err != nil {
		return pair{}, fmt.Errorf("load authority: %w", err)
	}
	t, err := template(name)
	if err != nil {
		return pair{}, err
	}
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if addr, err := netip.ParseAddr(name); err == nil {
		t.IPAddresses = []net.IP{addr.AsSlice()}
	} else {
		t.DNSNames = []string{name}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("make key: %w", err)
	}
	return encode(t, issuer.Leaf, key, issuer.PrivateKey, authority.Cert)
}

// encode signs a certificate and puts it before the chain above it.
func encode(t, parent *x509.Certificate, key *ecdsa.PrivateKey, signer any, above string) (pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return pair{}, fmt.Errorf("sign certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pair{}, fmt.Errorf("encode key: %w", err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return pair{
		Cert: string(cert) + above,
		Key:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}, nil
}
