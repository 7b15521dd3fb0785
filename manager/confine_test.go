package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNewPort has the server move to another port: the sandbox does not have it,
// so the manager ends, and the next one proves the change.
func TestNewPort(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.listen = []string{freePort(t)}
	r.serving.end(unix.SIGTERM)
	r.serve()
	r.start()
	_, port, _ := strings.Cut(r.listen[0], ":")
	if err := r.server.Want(t.Context(), r.sensor.ID, map[string]any{"server_endpoint_port_https": port}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.cli("poll"); err != nil {
		t.Fatal(err)
	}
	<-r.manager.done
	if said := r.manager.log.String(); !strings.Contains(said, "need other TCP ports: to be started again") {
		t.Fatalf("the manager ended: %s", said)
	}
	r.start()
	r.until("the change has proved itself", func() error {
		if s := r.status(); s.Settings.State != "" || !strings.HasSuffix(s.Server.Address, ":"+port) {
			return fmt.Errorf("server %s, settings %+v", s.Server.Address, s.Settings)
		}
		return nil
	})
}

// TestNoSecrets takes a manager with marked secrets through errors at the debug
// level. None of them may be in what it writes or answers.
func TestNoSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t, "--log-level", "debug")
	marks := map[string]string{
		"secret of the sensor": r.sensor.Secret, "password of the proxy": "marked-proxy-password", "password of 802.1X": "marked-eapol-password",
	}
	archive := r.want(map[string]any{
		"network_ip_mode": "0", "proxy_mode": 1, "proxy_host": "127.0.0.1", "proxy_port": 9, "proxy_user": "somebody",
		"proxy_password": marks["password of the proxy"], "eapol_mode": 1, "eapol_identity": "somebody",
		"eapol_password": marks["password of 802.1X"],
	})
	r.run()
	var told strings.Builder
	r.until("the proxy's failure is shown", func() error {
		if s := r.status(); s.Server.Error == "" {
			return fmt.Errorf("server %+v", s.Server)
		}
		return nil
	})
	r.reportAll(names("event", 10))
	_ = r.report(t.Context(), strings.Repeat("x", 2<<20))
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"services"}, {"events"}, {"events", "--json"}, {"events", "retry", "--all"}, {"poll"}, {"metrics"},
	} {
		text, err := r.cli(args...)
		fmt.Fprintln(&told, text, err)
	}
	r.manager.end(unix.SIGTERM)
	// Another start, with an archive that is none and with one that is damaged.
	for _, broken := range [][]byte{[]byte("none"), archive[:len(archive)/2], bytes.Replace(archive, archive[40:60], make([]byte, 20), 1)} {
		if err := os.WriteFile(r.archive(), broken, 0o600); err != nil {
			t.Fatal(err)
		}
		told.WriteString(r.manager.log.String())
		r.run()
		<-r.manager.done
	}
	told.WriteString(r.manager.log.String())
	text := told.String()
	if !strings.Contains(text, "somebody") {
		t.Error("the marks were not in use: not even the proxy's user is told")
	}
	for what, mark := range marks {
		for _, form := range []string{mark, base64.StdEncoding.EncodeToString([]byte(mark))} {
			if strings.Contains(text, form) {
				t.Errorf("the %s was told", what)
			}
		}
	}
	if cores, err := filepath.Glob(filepath.Join(r.dir, "*", "core*")); err != nil || len(cores) > 0 {
		t.Errorf("core dumps %v, %v", cores, err)
	}
}

// TestNoCore kills the manager as a fault of its own would.
func TestNoCore(t *testing.T) {
	r := newRig(t)
	r.start()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.pid()))
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0 bytes") {
		t.Errorf("limits %v:\n%s", err, limits)
	}
	r.manager.end(unix.SIGABRT)
	if r.manager.cmd.ProcessState.Sys().(interface{ CoreDump() bool }).CoreDump() {
		t.Error("a core was dumped")
	}
}
