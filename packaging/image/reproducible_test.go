package image_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"honeysens.org/dockersensor/shared/nettest"
)

// TestEngineBuildIsReproducible builds from two checkouts, which differ in place,
// time and permissions of their files, and wants the same programs and the same
// layer of the image, byte by byte.
func TestEngineBuildIsReproducible(t *testing.T) {
	nettest.Need(t, "docker", "dockerd", "mmdebstrap")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	// The deeper one is where another umask and the time of now are.
	first := checkout(t, root, filepath.Join(t.TempDir(), "a"), "022")
	second := checkout(t, root, filepath.Join(t.TempDir(), "elsewhere", "b"), "002")
	for _, dir := range []string{first, second} {
		run(t, dir, "make", "--no-print-directory", "image-context", "lab-programs", "REVISION=1.2.3", "SOURCE_DATE_EPOCH=1700000000",
			"CACHE="+filepath.Join(root, "out/cache"))
	}
	if out, err := exec.Command("diff", "-r", filepath.Join(first, "out/bin"), filepath.Join(second, "out/bin")).CombinedOutput(); err != nil {
		t.Errorf("programs differ: %v: %s", err, out)
	}

	// One engine; what the first build left is removed, or the second would take
	// it for its own.
	build := `for dir in "$@"; do
		cd "$dir"
		packaging/image/build.sh 1.2.3 out/image "$0" out/bin 1000 >/dev/null
		docker image inspect --format '{{json .RootFS.Layers}}' honeysens/sensorx86:1.2.3
		docker rmi honeysens/sensorx86:1.2.3 >/dev/null
	done`
	out := run(t, first, "out/bin/lab", "--dir", filepath.Join(first, "engine"), "--runtime", "out/bin/runcshim", "with-engine",
		"bash", "-euc", build, filepath.Join(root, "out/cache"), first, second)
	images := strings.Split(strings.TrimSpace(out), "\n")
	if len(images) != 2 || images[0] != images[1] {
		t.Errorf("the layers differ:\n%s", out)
	}
	t.Logf("layers: %s", images[0])
	describes(t, filepath.Join(first, "out/image/rootfs/usr/share/honeysens/sbom.cdx.json"))
}

// describes wants the bill of materials to name programs, modules and packages,
// and the licences of all modules but our own and Go itself.
func describes(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	bom := new(cdx.BOM)
	if err := cdx.NewBOMDecoder(file, cdx.BOMFileFormatJSON).Decode(bom); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, c := range *bom.Components {
		found[c.Name] = true
		own := c.Name == "honeysens.org/dockersensor" || c.Name == "std"
		if strings.HasPrefix(c.BOMRef, "pkg:golang/") && !own && (c.Licenses == nil || len(*c.Licenses) == 0) {
			t.Errorf("%s has no licence", c.BOMRef)
		}
	}
	for _, want := range []string{"honeysens.org/dockersensor", "github.com/docker/compose/v5", "github.com/google/nftables", "std", "docker.io", "s6", "libc6"} {
		if !found[want] {
			t.Errorf("%s is not described", want)
		}
	}
	t.Logf("%d components", len(*bom.Components))
}

// checkout copies the sources, with permissions as another umask would have them.
func checkout(t *testing.T, root, to, umask string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(to, "out/tools"), 0o755); err != nil {
		t.Fatal(err)
	}
	copies := `umask ` + umask + `; cp --recursive --no-preserve=mode,timestamps --no-dereference Makefile go.mod go.sum manager nethelper cni shared packaging "$0"
		find Makefile manager nethelper cni shared packaging -type f -perm -u=x | while read -r file; do chmod +x "$0/$file"; done
		cp out/tools/docker-compose-* "$0/out/tools/"`
	run(t, root, "bash", "-c", copies, to)
	return to
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s%s", name, args, err, out, complaints.String())
	}
	return string(out)
}
