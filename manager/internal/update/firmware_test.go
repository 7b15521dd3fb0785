package update

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// entry is a member of an archive.
type entry struct {
	name string
	data []byte
	kind byte
}

func archived(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(e.data)), Mode: 0o644}
		if e.kind != 0 {
			h.Typeflag = e.kind
		}
		if e.kind == tar.TypeSymlink {
			h.Linkname = "metadata.xml"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// savedImage is what `docker save` writes: legacy layers, or blobs.
type savedImage struct {
	Tags   []string
	Arch   string
	Labels map[string]string
	// Blobs names members after their digests.
	Blobs bool
	// change spoils it.
	change func(entries []entry) []entry
}

func (i savedImage) bytes(t testing.TB) []byte {
	t.Helper()
	layer := []byte("layer of " + strings.Join(i.Tags, " "))
	digest := sha256.Sum256(layer)
	config := encoded(t, map[string]any{
		"architecture": or(i.Arch, runtime.GOARCH), "os": "linux", "config": map[string]any{"Labels": i.Labels},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(digest[:])}},
	})
	configDigest := sha256.Sum256(config)
	configName, layerName := hex.EncodeToString(configDigest[:])+".json", hex.EncodeToString(digest[:])+"/layer.tar"
	if i.Blobs {
		configName, layerName = blobs+hex.EncodeToString(configDigest[:]), blobs+hex.EncodeToString(digest[:])
	}
	manifest := encoded(t, []map[string]any{{"Config": configName, "RepoTags": i.Tags, "Layers": []string{layerName}}})
	entries := []entry{{name: configName, data: config}, {name: layerName, data: layer}, {name: "manifest.json", data: manifest}}
	if i.change != nil {
		entries = i.change(entries)
	}
	return archived(t, entries...)
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func encoded(t testing.TB, value any) []byte {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func metadataOf(platform, version string) entry {
	return entry{name: metadataMember, data: fmt.Appendf(nil, "<?xml version=\"1.0\"?>\n<firmware><name>n</name><platform>%s</platform><version>%s</version></firmware>", platform, version)}
}

func imageOf(t testing.TB, i savedImage) entry { return entry{name: imageMember, data: i.bytes(t)} }

var rightTags = []string{"honeysens/sensorx86:2.0"}

func goodImage(t testing.TB) entry { return imageOf(t, savedImage{Tags: rightTags}) }

func TestGoodFirmware(t *testing.T) {
	for name, c := range map[string]struct {
		archive []byte
		want    Firmware
	}{
		"gzip": {gzipped(t, archived(t, metadataOf(platform, "2.0"), goodImage(t))), Firmware{}},
		"plain, the other way round, with more": {
			archived(t, goodImage(t), entry{name: "conf", kind: tar.TypeDir}, entry{name: ".env"}, metadataOf(platform, "2.0"), entry{name: "README.md", data: []byte("x")}), Firmware{},
		},
		"blobs that take part": {
			archived(t, metadataOf(platform, "2.0"), imageOf(t, savedImage{Tags: rightTags, Blobs: true, Labels: map[string]string{handoverLabel: "1"}})), Firmware{Handover: true},
		},
		"a label that says no": {
			archived(t, metadataOf(platform, "2.0"), imageOf(t, savedImage{Tags: rightTags, Labels: map[string]string{handoverLabel: "0"}})), Firmware{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, digest, err := Verify(bytes.NewReader(c.archive), "2.0", nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Layers) != 1 || got.Unpacked == 0 {
				t.Errorf("found %+v", got)
			}
			got.Layers, got.Unpacked = nil, 0
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if sum := sha256.Sum256(c.archive); digest != hex.EncodeToString(sum[:]) {
				t.Errorf("digest %s", digest)
			}
			if err := Image(bytes.NewReader(c.archive), func(in io.Reader) error { _, err := io.Copy(io.Discard, in); return err }); err != nil {
				t.Errorf("image: %v", err)
			}
		})
	}
}

func TestBadFirmware(t *testing.T) {
	good := gzipped(t, archived(t, metadataOf(platform, "2.0"), goodImage(t)))
	broken := bytes.Clone(good)
	broken[len(broken)-6]++
	image := func(i savedImage) []byte { return archived(t, metadataOf(platform, "2.0"), imageOf(t, i)) }
	spoiled := func(change func([]entry) []entry) []byte { return image(savedImage{Tags: rightTags, change: change}) }
	described := func(manifest string) []byte {
		return spoiled(func(e []entry) []entry { e[2].data = []byte(manifest); return e })
	}
	for name, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"empty":                 {nil, "no metadata.xml"},
		"no archive":            {[]byte("<html>an error of a proxy</html>" + strings.Repeat("x", 600)), "read the archive"},
		"cut in gzip":           {good[:len(good)-20], "EOF"},
		"checksum of gzip":      {broken, "invalid checksum"},
		"cut in tar":            {archived(t, metadataOf(platform, "2.0"), goodImage(t))[:2000], "EOF"},
		"no metadata":           {archived(t, goodImage(t)), "no metadata.xml"},
		"no image":              {archived(t, metadataOf(platform, "2.0")), "no firmware.img"},
		"members with ./":       {archived(t, entry{name: "./metadata.xml"}), "plain name"},
		"absolute member":       {archived(t, entry{name: "/etc/passwd"}), "plain name"},
		"member that climbs":    {archived(t, entry{name: "conf/../../x"}), "plain name"},
		"metadata is a link":    {archived(t, entry{name: metadataMember, kind: tar.TypeSymlink}), "neither a file"},
		"a device":              {archived(t, entry{name: "sda", kind: tar.TypeBlock}), "neither a file"},
		"metadata twice":        {archived(t, metadataOf(platform, "2.0"), metadataOf(platform, "3.0")), "there twice"},
		"many members":          {archived(t, manyEntries(maxMembers+1)...), "more than 64 members"},
		"large metadata":        {archived(t, entry{name: metadataMember, data: make([]byte, maxMetadata+1)}), "more than"},
		"metadata is no XML":    {archived(t, entry{name: metadataMember, data: []byte("no")}, goodImage(t)), metadataMember},
		"another root":          {archived(t, entry{name: metadataMember, data: []byte("<service><platform>docker_x86</platform></service>")}, goodImage(t)), "expected element type <firmware>"},
		"wrong platform":        {archived(t, metadataOf("bbb", "2.0"), goodImage(t)), `platform "bbb"`},
		"wrong version":         {archived(t, metadataOf(platform, "1.0"), goodImage(t)), `revision "1.0"`},
		"version with blanks":   {archived(t, metadataOf(platform, " 2.0"), goodImage(t)), `revision " 2.0"`},
		"wrong tag":             {image(savedImage{Tags: []string{"honeysens/sensorx86:1.0"}}), "named"},
		"another name":          {image(savedImage{Tags: []string{"debian:2.0"}}), "named"},
		"two tags":              {image(savedImage{Tags: []string{rightTags[0], "debian:latest"}}), "named"},
		"no tag":                {image(savedImage{}), "named"},
		"other processor":       {image(savedImage{Tags: rightTags, Arch: "s390x"}), "s390x"},
		"image is no tar":       {archived(t, metadataOf(platform, "2.0"), entry{name: imageMember, data: bytes.Repeat([]byte("x"), 1024)}), "read the image"},
		"image is empty":        {archived(t, metadataOf(platform, "2.0"), entry{name: imageMember}), `no "manifest.json"`},
		"two images":            {described(`[{},{}]`), "2 images"},
		"no images":             {described(`[]`), "0 images"},
		"manifest is no JSON":   {described(`[`), "manifest.json"},
		"configuration missing": {described(`[{"Config":"x","RepoTags":["honeysens/sensorx86:2.0"],"Layers":[]}]`), `no "x"`},
		"layer missing":         {spoiled(func(e []entry) []entry { return []entry{e[0], e[2]} }), "is missing"},
		"layers not as described": {spoiled(func(e []entry) []entry {
			e[0].data = bytes.Replace(e[0].data, []byte("diff_ids"), []byte("none"), 1)
			return e
		}), "describes 0"},
		"another digest":            {image(savedImage{Tags: rightTags, Blobs: true, change: func(e []entry) []entry { e[1].data = []byte("other"); return e }}), "another digest"},
		"many members in the image": {spoiled(func(e []entry) []entry { return append(manyEntries(maxImageMembers+1), e...) }), "more than 4096 members"},
		"large manifest": {spoiled(func(e []entry) []entry {
			e[2].data = append(e[2].data, bytes.Repeat([]byte(" "), maxDescription)...)
			return e
		}), `no "manifest.json"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Verify(bytes.NewReader(c.archive), "2.0", nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func manyEntries(n int) []entry {
	var entries []entry
	for i := range n {
		entries = append(entries, entry{name: fmt.Sprint("m", i)})
	}
	return entries
}

// TestBombsEnd has archives of some kilobytes that unpack to more than any disk
// holds.
func TestBombsEnd(t *testing.T) {
	dir := t.TempDir()
	hole := filepath.Join(dir, imageMember)
	if err := os.WriteFile(hole, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(hole, 1<<40); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "posix"} {
		bomb, err := exec.CommandContext(t.Context(), "tar", "--sparse", "--format="+format, "-C", dir, "-cf", "-", imageMember).Output()
		if err != nil {
			t.Fatal(err)
		}
		for name, archive := range map[string][]byte{
			"archive": gzipped(t, bomb),
			"image":   archived(t, metadataOf(platform, "2.0"), entry{name: imageMember, data: bomb}),
		} {
			t.Run(format+", "+name, func(t *testing.T) {
				_, _, err := Verify(bytes.NewReader(archive), "2.0", nil)
				if err == nil {
					t.Error("it is taken")
				}
				t.Logf("%d bytes: %v", len(archive), err)
			})
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(archived(f, metadataOf(platform, "2.0"), goodImage(f)))
	f.Add(gzipped(f, archived(f, metadataOf(platform, "2.0"), goodImage(f))))
	f.Add(archived(f, goodImage(f), metadataOf("bbb", "1"), entry{name: signatureMember, data: []byte("x")}))
	f.Fuzz(func(t *testing.T, archive []byte) {
		found, digest, err := Verify(bytes.NewReader(archive), "2.0", nil)
		if len(digest) != 64 {
			t.Errorf("digest %q", digest)
		}
		if err == nil && (len(found.Layers) == 0 || found.Signed) {
			t.Errorf("taken, with %+v", found)
		}
	})
}
