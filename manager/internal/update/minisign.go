package update

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// KeyFile is the name of the public key in the deployment directory. Where it is,
// only firmware that it has signed is taken. It is what `minisign -G` writes.
const KeyFile = "firmware.pub"

// maxSignature bounds key and signature, in bytes.
const maxSignature = 16 << 10

// PublicKey is one of minisign (https://jedisct1.github.io/minisign): Ed25519
// with an id.
type PublicKey struct {
	id  [8]byte
	key ed25519.PublicKey
}

// LoadKey reads the deployment's key. Without one it returns nil.
func LoadKey(dir string) (*PublicKey, error) {
	file, err := os.Open(filepath.Join(dir, KeyFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read public key of firmware: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSignature))
	if err != nil {
		return nil, fmt.Errorf("read public key of firmware: %w", err)
	}
	key, err := parseKey(text)
	return key, wrap("public key of firmware "+KeyFile, err)
}

func parseKey(text []byte) (*PublicKey, error) {
	lines := linesOf(text)
	if len(lines) < 2 {
		return nil, errors.New("want a comment and the key, as minisign writes them")
	}
	raw, err := base64.StdEncoding.DecodeString(lines[1])
	if err != nil || len(raw) != 2+8+ed25519.PublicKeySize || string(raw[:2]) != "Ed" {
		return nil, errors.New("the second line is no key of minisign")
	}
	return &PublicKey{id: [8]byte(raw[2:10]), key: raw[10:]}, nil
}

// verify checks a signature over a file with that BLAKE2b-512 hash, as minisign
// makes it: over the hash ("ED"), and once more with the trusted comment.
func (k *PublicKey) verify(hash, signature []byte) error {
	lines := linesOf(signature)
	if len(lines) < 4 || !strings.HasPrefix(lines[2], trusted) {
		return errors.New("it is not what minisign writes")
	}
	raw, err1 := base64.StdEncoding.DecodeString(lines[1])
	global, err2 := base64.StdEncoding.DecodeString(lines[3])
	if errors.Join(err1, err2) != nil || len(raw) != 2+8+ed25519.SignatureSize || len(global) != ed25519.SignatureSize {
		return errors.New("it is not what minisign writes")
	}
	if string(raw[:2]) != "ED" {
		return errors.New("it was made without hashing (minisign -l), which is not taken")
	}
	if !bytes.Equal(raw[2:10], k.id[:]) {
		return fmt.Errorf("it was made by another key than that in %s", KeyFile)
	}
	if !ed25519.Verify(k.key, hash, raw[10:]) {
		return errors.New("it does not fit the image")
	}
	if !ed25519.Verify(k.key, append(bytes.Clone(raw[10:]), lines[2][len(trusted):]...), global) {
		return errors.New("its trusted comment was changed")
	}
	return nil
}

const trusted = "trusted comment: "

func linesOf(text []byte) []string {
	var lines []string
	for line := range strings.Lines(string(text)) {
		lines = append(lines, strings.TrimRight(line, "\r\n"))
	}
	return lines
}
