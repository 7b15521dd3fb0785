package archive

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

func recon() Metadata {
	return Metadata{
		Name: "recon", Repository: "honeysens/recon", Description: "a & b", Architecture: "amd64", Revision: "1.0",
		CatchAll: true, PortAssignment: `{"2222/tcp": 22}`, RevisionDescription: "first",
	}
}

func build(t *testing.T) []byte {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(binary, []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	image, err := NewImage(ImageConfig{
		Files: []File{{From: binary, To: "/usr/lib/recon"}}, Architecture: "amd64", Entrypoint: []string{"/usr/lib/recon"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Write(&out, recon(), image); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRoundTrip(t *testing.T) {
	text := build(t)
	m, image, err := Read(bytes.NewReader(text), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(recon(), m, cmpopts.IgnoreFields(Metadata{}, "XMLName")); diff != "" {
		t.Error(diff)
	}
	if m.URI() != "honeysens/recon:amd64-1.0" {
		t.Errorf("URI %s", m.URI())
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Architecture != "amd64" || config.OS != "linux" || config.Config.Entrypoint[0] != "/usr/lib/recon" {
		t.Errorf("configuration %+v", config)
	}
	var names []string
	files := mutate.Extract(image)
	defer func() { _ = files.Close() }()
	for in := tar.NewReader(files); ; {
		member, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, member.Name)
	}
	if diff := cmp.Diff([]string{"usr", "usr/lib", "usr/lib/recon"}, names); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(text, build(t)) {
		t.Error("the same content made other bytes")
	}
}

type member struct {
	name, text string
	kind       byte
}

func pack(t *testing.T, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range members {
		h := header(m.name, int64(len(m.text)))
		if m.kind != 0 {
			h.Typeflag, h.Linkname = m.kind, "/etc/passwd"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRefused(t *testing.T) {
	const good = `<service><name>a</name><repository>honeysens/a</repository><architecture>amd64</architecture><revision>1</revision></service>`
	tests := []struct {
		name, want string
		data       []byte
	}{
		{"empty", "EOF", nil},
		{"no metadata", "want metadata.xml and service.tar", pack(t, member{name: "service.tar", text: "x"})},
		{"no image", "want metadata.xml and service.tar", pack(t, member{name: "metadata.xml", text: good})},
		{"prefix", "does not belong here", pack(t, member{name: "./metadata.xml", text: good})},
		{"climbing", "does not belong here", pack(t, member{name: "../../etc/cron.d/x", text: "x"})},
		{"twice", "there twice", pack(t, member{name: "metadata.xml", text: good}, member{name: "metadata.xml", text: good})},
		{"link", "not a regular file", pack(t, member{name: "service.tar", kind: tar.TypeSymlink})},
		{"giant metadata", "has 70000 bytes", pack(t, member{name: "metadata.xml", text: strings.Repeat("x", 70000)})},
		{"not XML", "metadata.xml:", pack(t, member{name: "metadata.xml", text: "{}"})},
		{"no boolean", "metadata.xml:", pack(t, member{name: "metadata.xml", text: strings.Replace(good, "<name>", "<catchAll>maybe</catchAll><name>", 1)})},
		{"bad revision", "revision is", pack(t, member{name: "metadata.xml", text: strings.Replace(good, ">1<", ">../1<", 1)})},
		{"bad repository", "no image name", pack(t, member{name: "metadata.xml", text: strings.Replace(good, "honeysens/a", "A B", 1)})},
		{"not an image", "service.tar:", pack(t, member{name: "metadata.xml", text: good}, member{name: "service.tar", text: "x"})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := Read(bytes.NewReader(test.data), t.TempDir())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{0x1f, 0x8b})
	f.Add([]byte("metadata.xml"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, _, err := Read(bytes.NewReader(data), t.TempDir())
		if err == nil && m.Validate() != nil {
			t.Error("accepted metadata that is not valid")
		}
	})
}
