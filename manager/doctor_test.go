package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"honeysens.org/dockersensor/manager/internal/doctor"
)

// examined are flags that lead the doctor to places where nothing is.
func examined(t *testing.T) []string {
	t.Helper()
	none := filepath.Join(t.TempDir(), "none")
	args := []string{"manager", "doctor", "--iface", "lo"}
	for _, flag := range []string{"config", "state-dir", "deploy-dir", "helper-socket", "docker-socket", "host-docker-socket", "control-socket"} {
		args = append(args, "--"+flag, none)
	}
	return args
}

func TestDoctor(t *testing.T) {
	out, err := run(t, examined(t)...)
	if err == nil || !strings.Contains(err.Error(), "problems were found") {
		t.Errorf("error is %v", err)
	}
	for _, want := range []string{"CHECK", "manager          problem  no manager runs", "-> set IFACE"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
}

func TestDoctorJSON(t *testing.T) {
	out, err := run(t, append(examined(t), "--before", "--json")...)
	var report doctor.Report
	if jsonErr := json.Unmarshal([]byte(out), &report); jsonErr != nil || err == nil {
		t.Fatalf("error %v, JSON error %v:\n%s", err, jsonErr, out)
	}
	if report.Problems != 2 || report.Findings[0].Level != doctor.Skipped {
		t.Errorf("report: %+v", report)
	}
}

func TestDoctorsFlags(t *testing.T) {
	if n := len(doctorPaths()); n != 8 {
		t.Errorf("%d of the flags of run were found", n)
	}
}

func TestDoctorAsksTheManager(t *testing.T) {
	socket := runSensor(t, &sensor{})
	out, err := run(t, append(examined(t), "--control-socket", socket, "--json")...)
	var report doctor.Report
	if jsonErr := json.Unmarshal([]byte(out), &report); jsonErr != nil || err == nil {
		t.Fatalf("error %v, JSON error %v:\n%s", err, jsonErr, out)
	}
	found := map[string]doctor.Finding{}
	for _, f := range report.Findings {
		found[f.Check] = f
	}
	for check, want := range map[string]string{"manager": "runs version 1.0", "clock": "2h0m0s", "services": "4 cowrie: no image", "events": "3 are in quarantine"} {
		if !strings.Contains(found[check].Text, want) {
			t.Errorf("%s: %+v", check, found[check])
		}
	}
}
