package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/manager/internal/hsapi/squidtest"
	"honeysens.org/dockersensor/packaging/lab/admin"
)

// want sets values of the sensor at the server, and puts the archive that has
// them in place, which it returns.
func (r *rig) want(values map[string]any) (archive []byte) {
	r.t.Helper()
	if err := r.server.Want(r.t.Context(), r.sensor.ID, values); err != nil {
		r.t.Fatal(err)
	}
	archive, err := r.server.Archive(r.t.Context(), r.sensor.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.archive(), archive, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return archive
}

// wantClass waits until status and log name a class of failure.
func (r *rig) wantClass(class string) {
	r.t.Helper()
	r.until("failure of class "+class, func() error {
		s := r.status()
		if s.Server.ErrorClass != class || s.Server.Error == "" {
			return fmt.Errorf("class %q: %s", s.Server.ErrorClass, s.Server.Error)
		}
		// The log follows the status.
		if said := strings.ReplaceAll(r.manager.log.String(), `": `, `":`); !strings.Contains(said, fmt.Sprintf(`"class":%q`, class)) {
			return errors.New("the log does not name the class")
		}
		return nil
	})
	r.t.Logf("%s: %s", class, r.status().Server.Error)
}

// TestFailureClasses has everything go wrong on the way to the server: each
// class is told from the others in the status and in the log.
func TestFailureClasses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	for class, fault := range map[string]string{"auth": admin.FaultForbidden, "server": admin.FaultError, "mac": admin.FaultWrongMAC, "answer": admin.FaultGarbage} {
		r.fault(admin.Fault{Path: admin.PathAny, Kind: fault})
		if _, err := r.cli("poll"); err != nil {
			t.Fatal(err)
		}
		r.wantClass(class)
		r.clearFaults()
		r.reached()
	}
	if err := r.server.Delete(t.Context(), r.sensor.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.cli("poll"); err != nil {
		t.Fatal(err)
	}
	r.wantClass("unknown")
	r.serving.end(unix.SIGTERM)
	r.wantClass("route")
	// Another server, with certificates of its own, takes its place.
	if err := os.RemoveAll(filepath.Join(r.dir, "server")); err != nil {
		t.Fatal(err)
	}
	r.serve()
	r.wantClass("tls")
}

// reached waits for a poll that the server took.
func (r *rig) reached() {
	r.t.Helper()
	r.until("the server is reached", func() error {
		if s := r.status(); s.Server.Error != "" || s.Server.LastPoll.IsZero() {
			return fmt.Errorf("%s", s.Server.Error)
		}
		return nil
	})
}

// TestFailureClassesOfTheWay are those that need an archive of their own.
func TestFailureClassesOfTheWay(t *testing.T) {
	for class, values := range map[string]map[string]any{
		"name":  {"server_endpoint_host": "nowhere.invalid"},
		"proxy": {"proxy_mode": 1, "proxy_host": "127.0.0.1", "proxy_port": 9},
	} {
		t.Run(class, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.want(values)
			r.run()
			r.wantClass(class)
		})
	}
}

// TestServersClock has the server two hours ahead and behind: the sensor polls
// and reports as ever, warns, shows the difference, and sends no status from
// the server's future. Then the server's clock is set right while it runs.
func TestServersClock(t *testing.T) {
	for _, ahead := range []time.Duration{2 * time.Hour, -2 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.serving.end(unix.SIGTERM)
			r.serverFlags = []string{"--clock-offset", ahead.String()}
			r.serve()
			r.start()
			r.reportAll([]string{"lone"})
			r.wantStored([]string{"lone"})
			s := r.status().Server
			if off := s.ClockOffset - ahead.Seconds(); off > 2 || off < -2 {
				t.Errorf("offset %f", s.ClockOffset)
			}
			sensor, err := r.server.Sensor(t.Context(), r.sensor.ID)
			if err != nil {
				t.Fatal(err)
			}
			if sensor.Status.Timestamp > sensor.Status.Received.Unix() {
				t.Errorf("a status of %d at %d", sensor.Status.Timestamp, sensor.Status.Received.Unix())
			}
			if said := r.manager.log.String(); !strings.Contains(said, "clock and the server's differ") || strings.Contains(said, "poll failed") {
				t.Errorf("the log says:\n%s", said)
			}
			text, err := r.cli("status")
			if want := fmt.Sprintf("the server's clock differs by %+.0f", ahead.Seconds())[:30]; err != nil || !strings.Contains(text, want) {
				t.Errorf("want %q in the status: %v\n%s", want, err, text)
			}
			r.serving.end(unix.SIGTERM)
			r.serverFlags = nil
			r.serve()
			if _, err := r.cli("poll"); err != nil {
				t.Fatal(err)
			}
			r.until("the clocks agree again", func() error {
				if s := r.status().Server; s.ClockOffset > 2 || s.ClockOffset < -2 || s.Error != "" {
					return fmt.Errorf("offset %f, %s", s.ClockOffset, s.Error)
				}
				return nil
			})
			if said := r.manager.log.String(); !strings.Contains(said, `"class": "clock"`) && !strings.Contains(said, `"class":"clock"`) {
				t.Errorf("the log says:\n%s", said)
			}
		})
	}
}

// TestNetnsManagerBehindSquid runs the manager, in its sandbox, behind a proxy
// that wants NTLM.
func TestNetnsManagerBehindSquid(t *testing.T) {
	squid := squidtest.Start(t, squidtest.NTLM|squidtest.Basic)
	r := newRig(t)
	r.want(map[string]any{"proxy_mode": 1, "proxy_host": squid.Host, "proxy_port": squid.Port, "proxy_user": `OFFICE\sensor`, "proxy_password": "marked-proxy-password"})
	r.start()
	events := names("event", 20)
	r.reportAll(events)
	r.wantStored(events)
	text, err := r.cli("status")
	if err != nil || !strings.Contains(text, fmt.Sprintf("%s:%d", squid.Host, squid.Port)) {
		t.Errorf("the proxy is not in the status: %v\n%s", err, text)
	}
	if said := r.manager.log.String() + text; strings.Contains(said, "marked-proxy-password") {
		t.Errorf("the password shows:\n%s", said)
	}
	r.manager.end(unix.SIGTERM)
	squid.WantSeen(t, 1, "CONNECT "+r.port+` OFFICE\sensor 200`)
}

// TestCertificateChangeOver has the server change its certificate, of the same
// authority and of another one: it announces the new one before it serves it, or
// serves it before the sensor has heard of it. The sensor is started again in
// between.
func TestCertificateChangeOver(t *testing.T) {
	for name, change := range map[string]struct{ newAuthority, unannounced bool }{
		"announced, same authority":      {false, false},
		"announced, another authority":   {true, false},
		"served at once, same authority": {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.start()
			if _, err := r.server.RenewCertificate(t.Context(), change.newAuthority); err != nil {
				t.Fatal(err)
			}
			if !change.unannounced {
				r.pollAgain()
				r.manager.end(unix.SIGTERM)
				r.start()
			}
			if _, err := r.server.ServeCertificate(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.pollAgain()
			r.manager.end(unix.SIGTERM)
			r.start()
			r.reportAll([]string{"after the change"})
			r.wantStored([]string{"after the change"})
			if said := r.manager.log.String(); strings.Contains(said, "poll failed") {
				t.Errorf("the log says:\n%s", said)
			}
		})
	}
}

// pollAgain asks for a poll and waits for its success.
func (r *rig) pollAgain() {
	r.t.Helper()
	before := r.status().Server.LastPoll
	if _, err := r.cli("poll"); err != nil {
		r.t.Fatal(err)
	}
	r.until("another poll", func() error {
		if s := r.status().Server; !s.LastPoll.After(before) || s.Error != "" {
			return fmt.Errorf("last poll %s, %s", s.LastPoll, s.Error)
		}
		return nil
	})
}
