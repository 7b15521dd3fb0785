// Package kubernetes_test holds the manifest to the API types of Kubernetes and
// to what the image needs.
package kubernetes_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// manifest decodes every document strictly: a field that the API does not know is
// an error.
func manifest(t *testing.T) *appsv1.DaemonSet {
	t.Helper()
	text, err := os.ReadFile("sensor.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var daemonSet *appsv1.DaemonSet
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			t.Fatal(err)
		}
		types := map[string]any{
			"v1 Namespace": new(corev1.Namespace), "v1 ServiceAccount": new(corev1.ServiceAccount), "apps/v1 DaemonSet": new(appsv1.DaemonSet),
		}
		into := types[kind.APIVersion+" "+kind.Kind]
		if into == nil {
			t.Fatalf("document of kind %s %s", kind.APIVersion, kind.Kind)
		}
		if err := yaml.UnmarshalStrict(document, into); err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
		}
		if found, ok := into.(*appsv1.DaemonSet); ok {
			daemonSet = found
		}
	}
	if daemonSet == nil {
		t.Fatal("there is no DaemonSet")
	}
	return daemonSet
}

func TestManifest(t *testing.T) {
	daemonSet := manifest(t)
	pod := daemonSet.Spec.Template
	for key, value := range daemonSet.Spec.Selector.MatchLabels {
		if pod.Labels[key] != value {
			t.Errorf("the selector wants %s=%s, which the pods do not have", key, value)
		}
	}
	if !pod.Spec.HostNetwork || pod.Spec.HostPID || len(pod.Spec.Containers) != 1 || len(pod.Spec.InitContainers) != 1 {
		t.Errorf("pod: %+v", pod.Spec)
	}
	sensor, first := pod.Spec.Containers[0], pod.Spec.InitContainers[0]
	if sensor.Image != first.Image || sensor.SecurityContext.Privileged == nil || !*sensor.SecurityContext.Privileged {
		t.Errorf("sensor: image %s and %s, %+v", sensor.Image, first.Image, sensor.SecurityContext)
	}
	if first.SecurityContext.Privileged != nil || *first.SecurityContext.AllowPrivilegeEscalation {
		t.Errorf("first container: %+v", first.SecurityContext)
	}
	volumes := map[string]bool{}
	for _, volume := range pod.Spec.Volumes {
		volumes[volume.Name] = true
	}
	for _, container := range []corev1.Container{sensor, first} {
		for _, mount := range container.VolumeMounts {
			if !volumes[mount.Name] {
				t.Errorf("%s mounts %s, which is no volume", container.Name, mount.Name)
			}
		}
	}
	paths := func(mounts []corev1.VolumeMount) (all []string) {
		for _, mount := range mounts {
			all = append(all, mount.MountPath)
		}
		slices.Sort(all)
		return all
	}
	if got := paths(sensor.VolumeMounts); !slices.Equal(got, []string{"/etc/manager", "/mnt/state", "/var/lib/docker"}) {
		t.Errorf("the sensor mounts %v", got)
	}
}

// Variables of the manifest are those of the compose file.
func TestVariables(t *testing.T) {
	compose, err := os.ReadFile("../deploy/docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, variable := range manifest(t).Spec.Template.Spec.Containers[0].Env {
		if !strings.Contains(string(compose), "- "+variable.Name+"=") {
			t.Errorf("%s is no variable of the sensor", variable.Name)
		}
	}
}

// TestConfiguration runs the script of the first container: the Secret's archive
// is taken once, and again when it has changed; what the sensor wrote stays
// otherwise.
func TestConfiguration(t *testing.T) {
	command := manifest(t).Spec.Template.Spec.InitContainers[0].Command
	dir := t.TempDir()
	for _, name := range []string{"secret", "etc/manager", "mnt/state"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := command[len(command)-1]
	for _, path := range []string{"/secret/", "/etc/manager/", "/mnt/state/"} {
		script = strings.ReplaceAll(script, path, dir+path)
	}
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start := func(want string) {
		t.Helper()
		if out, err := exec.Command(command[0], command[1], script).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		files, err := filepath.Glob(filepath.Join(dir, "etc/manager/*.tar.gz"))
		if err != nil || len(files) != 1 {
			t.Fatalf("archives %v, %v", files, err)
		}
		if got, err := os.ReadFile(files[0]); err != nil || string(got) != want {
			t.Errorf("archive is %q, %v, want %q", got, err, want)
		}
	}
	put("secret/archive", "one")
	start("one")
	put("etc/manager/sensor.tar.gz", "one, changed by the server")
	start("one, changed by the server")
	put("secret/archive", "two")
	start("two")
}
