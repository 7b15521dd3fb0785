package kubernetes_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestKubectl enters the guide's commands that make objects. There is no cluster
// here, so kubectl prints what it would send, and that has to be what the manifest
// refers to. Of `kubectl apply` it is seen that kubectl can read the file.
func TestKubectl(t *testing.T) {
	if _, err := exec.LookPath("kubectl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, spec := t.TempDir(), manifest(t).Spec.Template.Spec
	for name, text := range map[string]string{"s1.tar.gz": "archive of node-1", "node.json": `{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	guide := kubectlLines(t)

	var namespace corev1.Namespace
	dryRun(t, dir, guide.line(t, "create namespace")+" --dry-run=client", &namespace)
	if want := manifest(t).Namespace; namespace.Name != want {
		t.Errorf("namespace %q, the manifest has %q", namespace.Name, want)
	}

	var secret corev1.Secret
	dryRun(t, dir, guide.line(t, "create secret")+" --dry-run=client", &secret)
	if secret.Namespace != namespace.Name || !refersTo(spec.Volumes, secret.Name, "archive") || string(secret.Data["archive"]) != "archive of node-1" {
		t.Errorf("the manifest knows no such Secret: %s/%s with %v", secret.Namespace, secret.Name, secret.Data)
	}

	var node corev1.Node
	dryRun(t, dir, strings.Replace(guide.line(t, "label node"), "node node-1", "--local -f node.json", 1), &node)
	for key, value := range node.Labels {
		if spec.NodeSelector[key] != value {
			t.Errorf("label %s=%s, the manifest selects %v", key, value, spec.NodeSelector)
		}
	}
	if len(node.Labels) != 1 {
		t.Errorf("labels %v", node.Labels)
	}

	file := strings.TrimPrefix(guide.line(t, "apply"), "kubectl apply -f ")
	path, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	read := kubectl(t, dir, "kubectl annotate --local -o name seen=yes -f "+path)
	if want := "namespace/honeysens\nserviceaccount/sensor\ndaemonset.apps/sensor\n"; read != want {
		t.Errorf("kubectl reads from %s:\n%s", file, read)
	}
}

// lines are the guide's commands for kubectl.
type lines []string

func kubectlLines(t *testing.T) lines {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var found lines
	for _, match := range regexp.MustCompile(`(?m)^ {4,}(kubectl .*)$`).FindAllStringSubmatch(string(text), -1) {
		found = append(found, match[1])
	}
	return found
}

// line returns the only command of that kind.
func (l lines) line(t *testing.T, kind string) string {
	t.Helper()
	var found []string
	for _, line := range l {
		if strings.Contains(line, " "+kind+" ") {
			found = append(found, line)
		}
	}
	if len(found) != 1 {
		t.Fatalf("the guide has %d commands for %q: %q", len(found), kind, l)
	}
	return found[0]
}

// dryRun decodes what a command would send, strictly.
func dryRun(t *testing.T, dir, command string, into any) {
	t.Helper()
	out := kubectl(t, dir, command+" -o yaml")
	if err := yaml.UnmarshalStrict([]byte(out), into); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// kubectl runs a command that reaches no cluster.
func kubectl(t *testing.T, dir, command string) string {
	t.Helper()
	words := strings.Fields(command)
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "KUBECONFIG=")
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, complaints.String())
	}
	return string(out)
}

// refersTo says whether a volume takes that key of that Secret.
func refersTo(volumes []corev1.Volume, name, key string) bool {
	for _, volume := range volumes {
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if source.Secret == nil || source.Secret.Name != name {
				continue
			}
			for _, item := range source.Secret.Items {
				if item.Key == key {
					return true
				}
			}
		}
	}
	return false
}
