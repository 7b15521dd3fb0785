package update

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/blake2b"
)

// signer makes what minisign makes.
type signer struct {
	id  string
	key ed25519.PrivateKey
}

func newSigner(t testing.TB, id string) signer {
	t.Helper()
	seed := bytes.Repeat([]byte(id[:1]), ed25519.SeedSize)
	return signer{id: id, key: ed25519.NewKeyFromSeed(seed)}
}

func (s signer) public() []byte {
	key := "Ed" + s.id + string(s.key.Public().(ed25519.PublicKey))
	return []byte("untrusted comment: minisign public key\n" + base64.StdEncoding.EncodeToString([]byte(key)) + "\n")
}

// sign signs as `minisign -S` does, or with another algorithm's name.
func (s signer) sign(data []byte, algorithm, comment string) []byte {
	hash := blake2b.Sum512(data)
	signature := ed25519.Sign(s.key, hash[:])
	global := ed25519.Sign(s.key, append(bytes.Clone(signature), comment...))
	return []byte("untrusted comment: x\n" + base64.StdEncoding.EncodeToString([]byte(algorithm+s.id+string(signature))) +
		"\ntrusted comment: " + comment + "\n" + base64.StdEncoding.EncodeToString(global) + "\n")
}

// TestMinisign has a key and signatures that minisign 0.11 made.
func TestMinisign(t *testing.T) {
	const dir = "testdata/minisign"
	key, err := LoadKey(dir)
	if err != nil || key == nil {
		t.Fatal(key, err)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	hash := blake2b.Sum512(read("firmware.img"))
	if err := key.verify(hash[:], read("firmware.img.minisig")); err != nil {
		t.Error(err)
	}
	if err := key.verify(hash[:], read("legacy.minisig")); err == nil || !strings.Contains(err.Error(), "without hashing") {
		t.Errorf("legacy signature: %v", err)
	}
	hash[0]++
	if err := key.verify(hash[:], read("firmware.img.minisig")); err == nil {
		t.Error("a changed image is taken")
	}
}

func TestFirmwareHasToBeSigned(t *testing.T) {
	ours, other := newSigner(t, "12345678"), newSigner(t, "87654321")
	impostor := signer{id: ours.id, key: other.key}
	key, err := parseKey(ours.public())
	if err != nil {
		t.Fatal(err)
	}
	image := goodImage(t)
	right := string(ours.sign(image.data, "ED", "2.0"))
	for name, c := range map[string]struct{ signature, want string }{
		"right":               {right, ""},
		"right, CRLF":         {strings.ReplaceAll(right, "\n", "\r\n"), ""},
		"none":                {"", "not signed"},
		"empty":               {"\n", "not what minisign writes"},
		"another key":         {string(other.sign(image.data, "ED", "2.0")), "another key"},
		"another key, our id": {string(impostor.sign(image.data, "ED", "2.0")), "does not fit"},
		"another image":       {string(ours.sign([]byte("x"), "ED", "2.0")), "does not fit"},
		"not hashed":          {string(ours.sign(image.data, "Ed", "2.0")), "without hashing"},
		"changed comment":     {strings.Replace(right, "comment: 2.0", "comment: 3.0", 1), "trusted comment was changed"},
		"no comment":          {strings.Replace(right, "trusted comment: 2.0", "2.0", 1), "not what minisign writes"},
		"no base64":           {strings.Replace(right, "\n", "\n!", 1), "not what minisign writes"},
		"cut":                 {right[:len(right)-10], "not what minisign writes"},
		"too large":           {right + strings.Repeat(" ", maxSignature), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			entries := []entry{metadataOf(platform, "2.0"), image}
			if c.signature != "" {
				entries = append(entries, entry{name: signatureMember, data: []byte(c.signature)})
			}
			found, _, err := Verify(bytes.NewReader(archived(t, entries...)), "2.0", key)
			switch {
			case c.want == "" && (err != nil || !found.Signed):
				t.Errorf("not taken: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// TestKeyThatCannotBeRead: a key that is there and is none must not mean that
// everything is taken.
func TestKeyThatCannotBeRead(t *testing.T) {
	if key, err := LoadKey(t.TempDir()); key != nil || err != nil {
		t.Errorf("no key: %v, %v", key, err)
	}
	for name, text := range map[string]string{
		"empty": "", "one line": "RWTX", "no base64": "c\n!!\n", "short": "c\nRWTX\n",
		"a secret key": "c\nRWRTY0Iy" + strings.Repeat("A", 200) + "\n",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, KeyFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if key, err := LoadKey(dir); err == nil || key != nil {
			t.Errorf("%s: %v, %v", name, key, err)
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, KeyFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(dir); err == nil {
		t.Error("a directory is taken for a key")
	}
}

func FuzzMinisign(f *testing.F) {
	s := newSigner(f, "12345678")
	f.Add(s.public(), s.sign([]byte("x"), "ED", "c"))
	f.Add([]byte("a\nb\n"), []byte("a\nb\ntrusted comment: \nc"))
	hash := blake2b.Sum512([]byte("another"))
	f.Fuzz(func(t *testing.T, public, signature []byte) {
		key, err := parseKey(public)
		if err == nil && key.verify(hash[:], signature) == nil {
			t.Error("what nobody signed is taken")
		}
	})
}
