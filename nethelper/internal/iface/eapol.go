package iface

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Files of a supplicant, in a directory of their own on a tmpfs.
const (
	configFile = "wpa_supplicant.conf"
	caFile     = "ca.pem"
	certFile   = "client.pem"
	keyFile    = "client.key"
)

// writeFiles writes what wpa_supplicant reads into dir, for root alone, and
// returns the path of its configuration.
func writeFiles(dir string, want *helperapi.EAPOL) (string, error) {
	if err := removeFiles(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("directory of the supplicant: %w", err)
	}
	text, err := supplicantConfig(dir, want)
	if err != nil {
		return "", err
	}
	files := map[string][]byte{configFile: []byte(text)}
	pems := []struct {
		name, text string
		decode     func(string) ([]byte, error)
	}{
		{caFile, want.CA, helperapi.CertificatePEM}, {certFile, want.ClientCert, helperapi.CertificatePEM},
		{keyFile, want.ClientKey, helperapi.KeyPEM},
	}
	for _, p := range pems {
		if p.text == "" {
			continue
		}
		if files[p.name], err = p.decode(p.text); err != nil {
			return "", fmt.Errorf("%s: %w", p.name, err)
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return "", fmt.Errorf("file of the supplicant: %w", err)
		}
	}
	return filepath.Join(dir, configFile), nil
}

func removeFiles(dir string) error {
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove files of the supplicant: %w", err)
	}
	return nil
}

// supplicantConfig writes the configuration (wpa_supplicant.conf(5)). Every
// value that came from elsewhere is in hexadecimal digits, so none can end its
// line or be taken for something else.
func supplicantConfig(dir string, want *helperapi.EAPOL) (string, error) {
	if strings.ContainsFunc(dir, func(r rune) bool { return r < ' ' || r == '"' || r == 0x7f }) {
		return "", fmt.Errorf("directory %q: cannot be named in a configuration", dir)
	}
	// No control socket, no roaming: one wired network.
	lines := []string{"ap_scan=0", "network={", "key_mgmt=IEEE8021X", "eapol_flags=0"}
	method, ok := map[helperapi.EAPOLMethod][]string{
		helperapi.EAPOLMD5:  {"eap=MD5"},
		helperapi.EAPOLTLS:  {"eap=TLS"},
		helperapi.EAPOLPEAP: {"eap=PEAP", `phase2="auth=MSCHAPV2"`},
		helperapi.EAPOLTTLS: {"eap=TTLS", `phase2="auth=MSCHAPV2"`},
	}[want.Method]
	if !ok {
		return "", fmt.Errorf("802.1X method %q: unknown", want.Method)
	}
	lines = append(lines, method...)
	values := []struct{ key, value string }{
		{"identity", want.Identity}, {"anonymous_identity", want.AnonymousIdentity},
		{"password", want.Password}, {"private_key_passwd", want.ClientKeyPassword},
	}
	for _, v := range values {
		if v.value != "" {
			lines = append(lines, v.key+"="+hex.EncodeToString([]byte(v.value)))
		}
	}
	files := []struct{ key, content, name string }{
		{"ca_cert", want.CA, caFile}, {"client_cert", want.ClientCert, certFile}, {"private_key", want.ClientKey, keyFile},
	}
	for _, f := range files {
		if f.content != "" {
			lines = append(lines, f.key+`="`+filepath.Join(dir, f.name)+`"`)
		}
	}
	return strings.Join(append(lines, "}", ""), "\n"), nil
}
