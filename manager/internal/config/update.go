package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// Changes is what a server's answer says about the configuration, in the words
// of the archive.
type Changes struct {
	// Values are those that the answer named. A nil text is unset.
	Values []Value
	// The files; what the answer did not name stays.
	ServerChain, EAPOLCA, EAPOLClientCert, EAPOLClientKey File
	// Served is the fingerprint of the certificate that the server showed
	// with this answer, or "".
	Served string
}

// Value is a key of the archive with its new text.
type Value struct {
	Section, Key string
	Text         *string
}

// File is a new file, or the wish to be rid of one.
type File struct {
	// Present tells that the answer named the file.
	Present bool
	// PEM is nil when the file shall go.
	PEM []byte
}

// Update takes over what the server sent, in memory; Save it when it changed.
// Each group of settings (server, service network, network, MAC, proxy, 802.1X,
// certificate) is taken over whole if it is valid, else stays as it is: the
// error names what was refused, while the rest has changed all the same.
func (a *Archive) Update(c Changes) (changed bool, err error) {
	var errs []error
	for _, g := range groups {
		next := a.Clone()
		touched, err := next.apply(g.name, c)
		if err == nil && touched {
			err = g.parse(next, &Settings{})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("the server's settings (%s) are refused: %w", g.name, err))
			continue
		}
		if touched {
			a.doc, a.members = next.doc, next.members
			changed = true
		}
	}
	if a.forgetPrevious(c.Served) {
		changed = true
	}
	return changed, errors.Join(errs...)
}

// apply takes over the values and files of one group, unchecked.
func (a *Archive) apply(group string, c Changes) (touched bool, err error) {
	for _, v := range c.Values {
		if v.Section != group {
			continue
		}
		did, err := a.applyValue(v)
		if err != nil {
			return false, err
		}
		touched = touched || did
	}
	switch group {
	case "certificate":
		touched = a.applyChain(c.ServerChain, c.Served)
	case "eapol":
		ca := a.applyFile(c.EAPOLCA, "ca_cert", eapolCAFile)
		cert := a.applyFile(c.EAPOLClientCert, "client_cert", eapolCertFile)
		key := a.applyFile(c.EAPOLClientKey, "client_key", eapolKeyFile)
		touched = touched || ca || cert || key
	}
	return touched, nil
}

// applyValue sets a value unless it says what the archive says: servers write
// unset values as a bare key, as nothing, and a proxy's port as None.
func (a *Archive) applyValue(v Value) (touched bool, err error) {
	text := ""
	if v.Text != nil {
		if text, err = canonical(*v.Text); err != nil {
			return false, fmt.Errorf("%s.%s: %w", v.Section, v.Key, err)
		}
	}
	old := a.text(v.Section, v.Key)
	if v.Section == "proxy" && v.Key == "port" && old == "None" {
		old = ""
	}
	if text == old {
		return false, nil
	}
	if text == "" {
		a.doc.set(v.Section, v.Key, nil)
	} else {
		a.doc.set(v.Section, v.Key, &text)
	}
	return true, nil
}

// applyChain takes over a new certificate of the server. What the server serves
// stays trusted: it announces the new one while it still serves the old one, and
// may announce yet another one before it serves the first.
func (a *Archive) applyChain(f File, served string) bool {
	name := a.text("server", "certfile")
	if name == "" || name == previousCertFile {
		name = serverCertFile
	}
	old := a.file(name)
	if !f.Present || bytes.Equal(f.PEM, old) {
		return false
	}
	a.setFile(previousCertFile, stillTrusted(old, a.file(previousCertFile), served))
	a.doc.set("server", "certfile", &name)
	a.setFile(name, f.PEM)
	return true
}

// stillTrusted is what the new chain before is made of, given the chain that is
// replaced, the chain before that one, and the certificate that was served.
func stillTrusted(old, previous []byte, served string) []byte {
	before, err := parseCerts(previous)
	if err != nil {
		return old
	}
	replaced, err := parseCerts(old)
	switch {
	case err != nil || Fingerprint(before[0]) == served:
		return previous
	case Fingerprint(replaced[0]) == served:
		return old
	case len(replaced)+len(before) > maxChain:
		// The older one was in use when the newer one was announced.
		return previous
	}
	return slices.Concat(old, []byte("\n"), previous)
}

// applyFile takes over a file of 802.1X, or its removal.
func (a *Archive) applyFile(f File, key, name string) bool {
	old := a.text("eapol", key)
	if !f.Present || (old == "" && f.PEM == nil) {
		return false
	}
	if f.PEM == nil {
		a.doc.set("eapol", key, nil)
		if old != a.text("server", "certfile") {
			a.setFile(old, nil)
		}
		return true
	}
	if old == name && bytes.Equal(a.file(name), f.PEM) {
		return false
	}
	a.doc.set("eapol", key, &name)
	a.setFile(name, f.PEM)
	return true
}

// forgetPrevious drops the chain before once the server shows the new one.
func (a *Archive) forgetPrevious(served string) bool {
	if served == "" || a.file(previousCertFile) == nil || served != a.Fingerprints().Server {
		return false
	}
	a.setFile(previousCertFile, nil)
	return true
}
