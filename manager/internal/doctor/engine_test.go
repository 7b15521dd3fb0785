package doctor

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// engineOf answers as a Docker engine does.
func engineOf(version, driver, runtime string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/info") {
			fmt.Fprintf(w, `{"ServerVersion":%q,"Driver":%q,"DefaultRuntime":%q}`, version, driver, runtime)
		}
	})
}

func TestNestedEngine(t *testing.T) {
	tests := []struct {
		name    string
		handler http.Handler
		wants   []want
	}{
		{"good", engineOf("26.1.5", "overlay2", "bounded"), []want{{"nested engine", OK, "Docker 26.1.5"}}},
		{"copies", engineOf("26.1.5", "vfs", "bounded"), []want{{"nested engine", OK, "vfs"}, {"nested engine", Note, "slow and large"}}},
		{"without bounds", engineOf("26.1.5", "overlay2", "runc"), []want{{"nested engine", OK, ""}, {"nested engine", Note, "only once it is found"}}},
		{"ill", http.NotFoundHandler(), []want{{"nested engine", Problem, "docker compose logs"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := alone(Config{DockerSocket: serveUnix(t, test.handler)})
			d.examineEngine(t.Context())
			expect(t, d.findings, test.wants...)
		})
	}
}

func TestHostEngine(t *testing.T) {
	modern := serveUnix(t, engineOf("28.5.2", "overlay2", "bounded"))
	private := serveUnix(t, engineOf("28.5.2", "overlay2", "bounded"))
	if err := os.Chmod(private, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, socket string
		want         want
	}{
		{"good", modern, want{"host's engine", OK, "28.5.2"}},
		{"old", serveUnix(t, engineOf("19.03.8", "overlay2", "bounded")), want{"host's engine", Problem, "20.10 is needed"}},
		{"oldest", serveUnix(t, engineOf("20.10.24+dfsg1", "overlay2", "bounded")), want{"host's engine", OK, ""}},
		{"ill", serveUnix(t, http.NotFoundHandler()), want{"host's engine", Note, "check the host's Docker Engine"}},
		{"not mounted", filepath.Join(t.TempDir(), "none"), want{"host's engine", Note, "is not there"}},
		{"a directory", t.TempDir(), want{"host's engine", Note, "is not a socket"}},
		{"not for its group", private, want{"host's engine", Note, "may not use it"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := alone(Config{HostDockerSocket: test.socket})
			d.examineHostEngine(t.Context())
			expect(t, d.findings, test.want)
		})
	}
}
