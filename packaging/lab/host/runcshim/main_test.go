package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSpecification(t *testing.T) {
	tests := []struct {
		name, path string
		args, keys []string
	}{
		{"create", "/b/config.json", []string{"--root", "/r", "create", "--bundle", "/b", "id"}, []string{"process", "capabilities"}},
		{"run", "/b/config.json", []string{"run", "-b", "/b", "id"}, []string{"process", "capabilities"}},
		{"exec", "/p.json", []string{"--log=/l", "exec", "--process=/p.json", "id"}, []string{"capabilities"}},
		{"exec of a command line", "", []string{"exec", "id", "sh"}, []string{"capabilities"}},
		{"other", "", []string{"state", "id"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, keys := specification(tt.args)
			if path != tt.path {
				t.Errorf("path %q, want %q", path, tt.path)
			}
			if diff := cmp.Diff(tt.keys, keys); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRewrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	spec := `{"process":{"capabilities":{"bounding":["CAP_A","CAP_B"],"ambient":["CAP_B"]},"other":9007199254740993}}`
	if err := os.WriteFile(path, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := rewrite(path, []string{"process", "capabilities"}, map[string]bool{"CAP_B": true}); err != nil {
		t.Fatal(err)
	}
	want := `{"process":{"capabilities":{"ambient":[],"bounding":["CAP_A"]},"other":9007199254740993}}`
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("specification (-want +got):\n%s", diff)
	}
	if !json.Valid(got) {
		t.Error("not JSON")
	}
}
