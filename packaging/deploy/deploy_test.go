// Package deploy_test holds what is shipped beside the image to its contract
// with hosts, servers and updates by earlier sensors.
package deploy_test

import (
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

type composeFile struct {
	Services map[string]service `yaml:"services"`
	Volumes  map[string]any     `yaml:"volumes"`
}

type service struct {
	Image       string   `yaml:"image"`
	Privileged  bool     `yaml:"privileged"`
	NetworkMode string   `yaml:"network_mode"`
	Restart     string   `yaml:"restart"`
	TTY         bool     `yaml:"tty"`
	Environment []string `yaml:"environment"`
	Volumes     []string `yaml:"volumes"`
}

func readCompose(t *testing.T, path string) service {
	t.Helper()
	var file composeFile
	if err := yaml.Unmarshal([]byte(read(t, path)), &file); err != nil {
		t.Fatal(err)
	}
	sensor, ok := file.Services["sensor"]
	if !ok || len(file.Services) != 1 {
		t.Fatalf("services %v, want only `sensor`", file.Services)
	}
	if _, ok := file.Volumes["docker_overlay"]; !ok {
		t.Error("volume docker_overlay is not declared")
	}
	return sensor
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Both the file that is shipped and that of earlier releases, which an update
// leaves as it is but for the image.
func TestComposeFiles(t *testing.T) {
	for _, path := range []string{"docker-compose.yml", "testdata/docker-compose.old.yml"} {
		t.Run(path, func(t *testing.T) {
			sensor := readCompose(t, path)
			want := service{
				Image: "honeysens/sensorx86:@REVISION@", Privileged: true, NetworkMode: "host", Restart: "unless-stopped", TTY: true,
			}
			got := sensor
			got.Environment, got.Volumes = nil, nil
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("sensor (-want +got):\n%s", diff)
			}
			var targets []string
			for _, volume := range sensor.Volumes {
				targets = append(targets, volume[strings.LastIndex(volume, ":")+1:])
			}
			slices.Sort(targets)
			if diff := cmp.Diff([]string{"/etc/manager", "/mnt", "/var/lib/docker", "/var/run/docker.host.sock"}, targets); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
			// Passed on from the command that starts it, so without a value.
			for _, name := range []string{"HOST_PWD", "PREV_PREFIX"} {
				if !slices.Contains(sensor.Environment, name) {
					t.Errorf("environment does not pass %s on: %v", name, sensor.Environment)
				}
			}
		})
	}
}

func TestVariablesAreDocumented(t *testing.T) {
	documented := regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|").FindAllStringSubmatch(read(t, "README.md"), -1)
	var names []string
	for _, match := range documented {
		names = append(names, match[1])
	}
	var shipped []string
	for _, entry := range readCompose(t, "docker-compose.yml").Environment {
		name, _, _ := strings.Cut(entry, "=")
		shipped = append(shipped, name)
	}
	if diff := cmp.Diff(shipped, names); diff != "" {
		t.Errorf("variables of docker-compose.yml and of README.md (-compose +readme):\n%s", diff)
	}
}

// The README's tables name every variable that a program or a compose file reads,
// once.
func TestEveryVariableIsInTheReadme(t *testing.T) {
	// Go's own, and one that init hands to the manager.
	documented := map[string]bool{"GODEBUG": true, "SENSOR_GROUPS": true}
	for _, match := range regexp.MustCompile("(?m)^\\| (`[A-Z_`, ]+`) \\|").FindAllStringSubmatch(read(t, "../../README.md"), -1) {
		for name := range strings.SplitSeq(match[1], ",") {
			name = strings.Trim(name, "` ")
			if documented[name] {
				t.Errorf("README.md explains %s twice", name)
			}
			documented[name] = true
		}
	}
	each := func(pattern, expression string) {
		t.Helper()
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			for _, match := range regexp.MustCompile(expression).FindAllStringSubmatch(read(t, file), -1) {
				if !documented[match[1]] {
					t.Errorf("%s reads %s, which README.md does not explain", file, match[1])
				}
			}
		}
	}
	each("../../manager/*.go", `EnvVars: \[\]string\{"([A-Z_]+)"`)
	each("../../nethelper/*.go", `EnvVars: \[\]string\{"([A-Z_]+)"`)
	each("../dev/*.go", `EnvVars: \[\]string\{"([A-Z_]+)"`)
	each("../../manager/limits.go", `limitFlag\("[a-z-]+", "([A-Z_]+)"`)
	each("docker-compose*.yml", `(?m)^ +- ([A-Z_]+)(?:=|$)`)
	each("../image/rootfs/etc/sensor/services/*/run", `\$\{([A-Z_]+):-`)
}

// The split deployment offers what makes sense there.
func TestVariablesOfTheSplit(t *testing.T) {
	text := read(t, "docker-compose.split.yml")
	for _, entry := range readCompose(t, "docker-compose.yml").Environment {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case "EXTERNAL_IP", "HOST_PWD", "PREV_PREFIX", "UPDATE_RATE", "UPDATE_TIME", "DEV_MODE":
			continue // of bridge networking, updates and development
		}
		if !strings.Contains(text, "- "+name+"=") {
			t.Errorf("docker-compose.split.yml does not set %s", name)
		}
	}
}

func TestMetadata(t *testing.T) {
	var firmware struct {
		XMLName     xml.Name `xml:"firmware"`
		Name        string   `xml:"name"`
		Platform    string   `xml:"platform"`
		Version     string   `xml:"version"`
		Description string   `xml:"description"`
		Changelog   string   `xml:"changelog"`
	}
	if err := xml.Unmarshal([]byte(read(t, "metadata.xml")), &firmware); err != nil {
		t.Fatal(err)
	}
	if firmware.Platform != "docker_x86" || firmware.Version != "@REVISION@" {
		t.Errorf("platform %q, version %q", firmware.Platform, firmware.Version)
	}
	for _, text := range []string{firmware.Name, firmware.Description, firmware.Changelog} {
		// The server trims nothing.
		if text == "" || strings.TrimSpace(text) != text {
			t.Errorf("text %q is empty or has space around it", text)
		}
	}
}

func TestArchive(t *testing.T) {
	dir := t.TempDir()
	// An engine that builds nothing: what is tested is what becomes of it.
	engine := `#!/bin/sh
case "$*" in
  save*) echo image >"$3" ;;
  cp*) echo status >"$3" ;;
  export*) tar --create --files-from /dev/null ;;
esac
`
	for name, text := range map[string]string{"docker": engine, "sbom": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "dist", "archive.tar.gz")
	cmd := exec.Command("./dist.sh", "1.2.3", dir, dir, dir, "1", archive)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	want := "firmware.img\nmetadata.xml\ndocker-compose.yml\ndocker-compose.bridge.yml\ndocker-compose.split.yml\nconf/\n.env\nREADME.md\nMIGRATION.md\n"
	if diff := cmp.Diff(want, tar(t, "-tzf", archive)); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	if got := tar(t, "-xzOf", archive, "metadata.xml"); !strings.Contains(got, "<version>1.2.3</version>") {
		t.Errorf("metadata does not name the revision: %s", got)
	}
	if got := tar(t, "-xzOf", archive, "docker-compose.yml"); !strings.Contains(got, "image: honeysens/sensorx86:1.2.3\n") {
		t.Errorf("compose file does not name the revision: %s", got)
	}
	left, err := filepath.Glob(filepath.Join(dir, "dist", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

func tar(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("tar", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	return string(out)
}
