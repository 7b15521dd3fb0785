package config

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fixtures returns the archives that a HoneySens server 2.9.0 wrote.
func fixtures(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.tar.gz")
	if err != nil || len(files) < 12 {
		t.Fatalf("fixtures: %d, %v", len(files), err)
	}
	return files
}

// copyFixture copies an archive to where a test may write.
func copyFixture(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s1.tar.gz")
	if err := os.WriteFile(path, data, 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

// build packs an archive around an INI text.
func build(t testing.TB, cfg string, files ...member) *Archive {
	t.Helper()
	packed := packTar(t, append([]member{{configName, []byte(cfg)}}, files...)...)
	a, err := parse(packed)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func packTar(t testing.TB, members ...member) []byte {
	t.Helper()
	var headers []*tar.Header
	var bodies [][]byte
	for _, m := range members {
		headers = append(headers, &tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.data)), Typeflag: tar.TypeReg})
		bodies = append(bodies, m.data)
	}
	return packHeaders(t, headers, bodies)
}

func packHeaders(t testing.TB, headers []*tar.Header, bodies [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	out := tar.NewWriter(zip)
	for i, header := range headers {
		if err := out.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if i < len(bodies) {
			if _, err := out.Write(bodies[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// plainINI reads INI text as servers write it, in the simplest way there is: it
// shares nothing with the reader under test.
func plainINI(text string) map[string]map[string]*string {
	all := map[string]map[string]*string{}
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch key, value, set := strings.Cut(line, " = "); {
		case line == "":
		case line[0] == '[':
			section = strings.Trim(line, "[]")
			all[section] = map[string]*string{}
		case set:
			all[section][key] = &value
		default:
			all[section][key] = nil
		}
	}
	return all
}

func decodeJSON(t *testing.T, data []byte) map[string]map[string]*string {
	t.Helper()
	var all map[string]map[string]*string
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return all
}

func TestEveryArchiveIsPrintedAsItsTextSays(t *testing.T) {
	for _, file := range fixtures(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(strings.TrimSuffix(file, ".tar.gz") + ".cfg")
			if err != nil {
				t.Fatal(err)
			}
			a, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(text), a.Text()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(plainINI(string(text)), decodeJSON(t, a.JSON())); diff != "" {
				t.Errorf("JSON (-want +got):\n%s", diff)
			}
			if notes := a.migrate(); len(notes) != 0 {
				t.Errorf("a new archive was migrated: %v", notes)
			}
		})
	}
}

func TestLoadPrintsOldArchivesUnchanged(t *testing.T) {
	const old = "[server]\nhost = a\n\n[services]\nx\n\n"
	a := build(t, old)
	if a.Text() != old {
		t.Errorf("got %q, want %q", a.Text(), old)
	}
	want := "{\n  \"server\": {\n    \"host\": \"a\"\n  },\n  \"services\": {\n    \"x\": null\n  }\n}\n"
	if got := string(a.JSON()); got != want {
		t.Errorf("JSON: got %s, want %s", got, want)
	}
}

func TestLocate(t *testing.T) {
	dir := t.TempDir()
	mkdir := func(name string, files ...string) string {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.WriteFile(filepath.Join(path, file), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	link := filepath.Join(dir, "link.tar.gz")
	if err := os.Symlink(filepath.Join("one", "s1.tar.gz"), link); err != nil {
		t.Fatal(err)
	}
	one := mkdir("one", "s1.tar.gz", "README", ".s1.tar.gz.new", ".s2.tar.gz")
	tests := []struct {
		name, path, want, wantErr string
	}{
		{name: "directory with one", path: one, want: filepath.Join(one, "s1.tar.gz")},
		{name: "file", path: filepath.Join(one, "s1.tar.gz"), want: filepath.Join(one, "s1.tar.gz")},
		{name: "link", path: link, want: filepath.Join(one, "s1.tar.gz")},
		{name: "empty directory", path: mkdir("none", "README"), wantErr: "put the configuration archive of the sensor (s<id>.tar.gz, from the server) into"},
		{name: "several", path: mkdir("two", "s1.tar.gz", "s2.tar.gz"), wantErr: "(s1.tar.gz, s2.tar.gz)"},
		{name: "nothing there", path: filepath.Join(dir, "gone"), wantErr: "does not exist; put the configuration archive"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := locate(test.path)
			if got != test.want || !matches(err, test.wantErr) {
				t.Errorf("got %q, %v, want %q, %q", got, err, test.want, test.wantErr)
			}
		})
	}
}

// matches tells whether err is nil where want is empty, else contains it.
func matches(err error, want string) bool {
	if err == nil || want == "" {
		return err == nil && want == ""
	}
	return strings.Contains(err.Error(), want)
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	if _, err := zip.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unzipped(t testing.TB, packed []byte) []byte {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func flipped(data []byte, at int) []byte {
	data = bytes.Clone(data)
	data[at] ^= 1
	return data
}

// resized writes another size into the first head of a tar archive, with the
// right checksum.
func resized(plain []byte, size string) []byte {
	plain = bytes.Clone(plain)
	copy(plain[124:], size)
	copy(plain[148:], "        ")
	sum := 0
	for _, b := range plain[:512] {
		sum += int(b)
	}
	copy(plain[148:], fmt.Sprintf("%06o\x00 ", sum))
	return plain
}

// TestDamagedArchives has more than forty that are damaged or hostile, and a few
// that only look so. Each is refused with a reason and with what to do.
func TestDamagedArchives(t *testing.T) {
	cfg := member{configName, []byte("[server]\n")}
	header := func(name string, kind byte, size int64) *tar.Header {
		return &tar.Header{Name: name, Typeflag: kind, Size: size, Linkname: "/etc/shadow", Mode: 0o644}
	}
	odd := func(h *tar.Header) []byte { return packHeaders(t, []*tar.Header{h}, nil) }
	many := make([]member, maxMembers+1)
	for i := range many {
		many[i] = member{name: "f" + strings.Repeat("x", i)}
	}
	good := packTar(t, cfg)
	plain := unzipped(t, good)
	big := member{"big", make([]byte, maxMember)}
	var heavy []member
	for _, name := range strings.Split("abcdefghi", "") {
		heavy = append(heavy, member{name, big.data})
	}
	tests := []struct {
		name    string
		packed  []byte
		wantErr string
	}{
		{"good", good, ""},
		{"with ./", packTar(t, member{"./" + configName, cfg.data}), ""},
		{"with ./ directory", packHeaders(t, []*tar.Header{header("./", tar.TypeDir, 0), {Name: configName, Typeflag: tar.TypeReg}}, nil), ""},
		{"unknown file", packTar(t, cfg, member{"notes.txt", nil}), ""},
		{"empty", nil, "not a gzipped tar archive"},
		{"no gzip", []byte("PK\x03\x04"), "not a gzipped tar archive"},
		{"cut", good[:len(good)-6], "unexpected EOF"},
		{"damaged checksum", append(bytes.Clone(good[:len(good)-8]), 1, 2, 3, 4, 5, 6, 7, 8), "checksum"},
		{"no configuration", packTar(t, member{"x", nil}), "no member honeysens.cfg"},
		{"climbs", packTar(t, member{"../honeysens.cfg", nil}), "plain file name"},
		{"absolute", packTar(t, member{"/etc/passwd", nil}), "plain file name"},
		{"below", packTar(t, member{"sub/honeysens.cfg", nil}), "plain file name"},
		{"hidden", packTar(t, member{".profile", nil}), "plain file name"},
		{"link", odd(header("server-cert.pem", tar.TypeSymlink, 0)), "not a regular file"},
		{"hard link", odd(header("server-cert.pem", tar.TypeLink, 0)), "not a regular file"},
		{"device", odd(header("server-cert.pem", tar.TypeChar, 0)), "not a regular file"},
		{"pipe", odd(header("server-cert.pem", tar.TypeFifo, 0)), "not a regular file"},
		{"directory", odd(header("sub/", tar.TypeDir, 0)), "not a regular file"},
		{"climbing directory", odd(header("../", tar.TypeDir, 0)), "not a regular file"},
		{"twice", packTar(t, cfg, cfg), "appears twice"},
		{"too many", packTar(t, many...), "more than 64 members"},
		{"big member", packTar(t, cfg, member{"big", make([]byte, maxMember+1)}), "at most"},
		{"long text", packTar(t, member{configName, make([]byte, maxConfig+1)}), "at most 65536"},
		{"bomb", packTar(t, heavy...), "more than 8 MB unpacked"},
		{"not UTF-8", packTar(t, member{configName, []byte("[a]\nb = \xff\n")}), "not UTF-8"},
		{"UTF-16", packTar(t, member{configName, []byte("\xff\xfe[\x00a\x00]\x00\n\x00")}), "not UTF-8"},
		{"no section", packTar(t, member{configName, []byte("host = a\n")}), "line 1"},
		{"section twice", packTar(t, member{configName, []byte("[a]\n[a]\n")}), "twice"},
		{"key twice", packTar(t, member{configName, []byte("[a]\nb = 1\nb = 2\n")}), "twice"},
		{"key without a name", packTar(t, member{configName, []byte("[a]\n= 1\n")}), "line 2"},
		{"empty text", packTar(t, member{configName, nil}), "server.host is missing"},
		{"web page", []byte("<html>Please log in</html>"), "not a gzipped tar archive"},
		{"gzipped web page", gzipped(t, []byte("<html>Please log in</html>")), "read the tar archive"},
		{"gzip without content", gzipped(t, nil), "no member honeysens.cfg"},
		{"head of gzip only", good[:10], "EOF"},
		{"cut in the middle", good[:len(good)/2], "EOF"},
		{"a bit of the packed data flipped", flipped(good, len(good)/2), ""},
		{"tar cut in a head", gzipped(t, plain[:100]), "EOF"},
		{"tar cut in a body", gzipped(t, plain[:515]), "EOF"},
		{"checksum of a head", gzipped(t, flipped(plain, 0)), "invalid tar header"},
		{"size of a head", gzipped(t, resized(plain, "77777777777")), "bytes"},
		{"negative size", gzipped(t, resized(plain, "-0000000001")), "invalid tar header"},
		{"two archives in one", append(bytes.Clone(good), good...), ""},
		{"rubbish behind it", append(bytes.Clone(good), "rubbish"...), "damaged at its end"},
		{"endless name", packTar(t, member{strings.Repeat("x", 2000), nil}), "plain file name"},
		{"name with a line end", packTar(t, member{"a\nb", nil}), "plain file name"},
	}
	whole := map[string]bool{"good": true, "with ./": true, "with ./ directory": true, "unknown file": true, "two archives in one": true}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s1.tar.gz")
			if err := os.WriteFile(path, test.packed, 0o600); err != nil {
				t.Fatal(err)
			}
			archive, _, err := Open(path)
			if err == nil && !whole[test.name] {
				_, err = archive.Settings()
			}
			if whole[test.name] != (err == nil) || !matches(err, test.wantErr) && test.wantErr != "" {
				t.Errorf("got %v, want %q", err, test.wantErr)
			}
			if err != nil && (!strings.Contains(err.Error(), "server") || len(err.Error()) > 1500) {
				t.Errorf("it does not say what to do: %v", err)
			}
		})
	}
}

func TestLoadNamesTheFileAndTheRemedy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s1.tar.gz")
	if err := os.WriteFile(path, []byte("<html>"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if !matches(err, path) || !matches(err, "download the sensor's configuration") {
		t.Errorf("error %v", err)
	}
	if err := os.WriteFile(path, make([]byte, maxPacked+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !matches(err, "more than 4 MB") {
		t.Errorf("error %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, file := range fixtures(f) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(packTar(f, member{configName, []byte("[services]\n[server]\ncertfile = /a/b\n")}))
	f.Fuzz(func(_ *testing.T, data []byte) {
		a, err := parse(data)
		if err != nil {
			return
		}
		a.migrate()
		_, _ = a.Settings()
		a.JSON()
	})
}

// FuzzTar is FuzzParse behind the packing, which mutations hardly get through.
func FuzzTar(f *testing.F) {
	for _, file := range fixtures(f) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(unzipped(f, data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parse(gzipped(t, data))
		if err != nil {
			return
		}
		a.migrate()
		_, _ = a.Settings()
		a.JSON()
		packed, err := a.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Unpack(packed); err != nil || !back.Same(a) {
			t.Fatalf("packed and unpacked it is another: %v", err)
		}
	})
}
