// Package image_test tests the scripts that build the image and look after what
// is in it.
package image_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestVulnerable runs the real govulncheck over a program without symbols, as
// those of the image are, with databases of its
// own: one that knows a fault of a module in it, one that does not, and none.
func TestVulnerable(t *testing.T) {
	program := filepath.Join(t.TempDir(), "sbom")
	if out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", program, "./sbom").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	tests := []struct {
		name, database, wanted string
		status                 int
	}{
		{"a fault", database(t, "github.com/urfave/cli/v2"), "GO-2026-9999", 1},
		{"a fault of something else", database(t, "example.org/other"), "no known vulnerabilities", 0},
		{"no database", "file://" + filepath.Join(t.TempDir(), "missing"), "NOT EXAMINED", 2},
		{"database out of reach", "https://127.0.0.1:1", "NOT EXAMINED", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("./vulnerable.sh", program)
			cmd.Env = append(os.Environ(), "VULNDB="+tt.database)
			out, err := cmd.CombinedOutput()
			if status := cmd.ProcessState.ExitCode(); status != tt.status || !strings.Contains(string(out), tt.wanted) {
				t.Errorf("%v, want status %d and %q:\n%s", err, tt.status, tt.wanted, out)
			}
		})
	}
}

// database writes a vulnerability database (go.dev/doc/security/vuln/database)
// that knows one fault, in all versions of a module.
func database(t *testing.T, module string) string {
	t.Helper()
	dir := t.TempDir()
	const modified = "2026-01-01T00:00:00Z"
	files := map[string]string{
		"index/db.json":      fmt.Sprintf(`{"modified": %q}`, modified),
		"index/modules.json": fmt.Sprintf(`[{"path": %q, "vulns": [{"id": "GO-2026-9999", "modified": %q}]}]`, module, modified),
		"index/vulns.json":   fmt.Sprintf(`[{"id": "GO-2026-9999", "modified": %q}]`, modified),
		"ID/GO-2026-9999.json": fmt.Sprintf(`{"schema_version": "1.3.1", "id": "GO-2026-9999", "modified": %q, "published": %q,
			"summary": "a fault", "details": "a fault",
			"affected": [{"package": {"name": %q, "ecosystem": "Go"}, "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}]}],
			"ecosystem_specific": {}}], "database_specific": {"url": "https://example.org"}}`, modified, modified, module),
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return "file://" + dir
}
