package app

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/collector"
	"honeysens.org/dockersensor/manager/internal/control"
	"honeysens.org/dockersensor/manager/internal/network"
	"honeysens.org/dockersensor/manager/internal/selftest"
	"honeysens.org/dockersensor/manager/internal/services"
	"honeysens.org/dockersensor/shared/helperapi"
)

// prober is the helper as a self-test needs it.
type prober struct {
	*keeper
	client *network.Client
}

// Probe asks the helper.
func (p prober) Probe(ctx context.Context, want helperapi.Probe) (helperapi.ProbeResult, error) {
	return p.client.Probe(ctx, want)
}

// SelfTest visits all honeypots as an attacker would, and tells whether all of
// the way works. No visit becomes an event at the server.
func (m *manager) SelfTest(ctx context.Context, tell func(control.TestFinding)) bool {
	if err := os.WriteFile(testNote(m.cfg), nil, 0o600); err != nil {
		m.log.Warn("a restart during the self-test would take it for attacks", zap.Error(err))
	}
	var visited []selftest.Service
	for _, s := range m.services.States() {
		visited = append(visited, visitable(s))
	}
	test := selftest.Test{
		Helper:    prober{m.keeper, network.New(network.Config{Socket: m.cfg.HelperSocket}, m.log.Named("helper"))},
		Mark:      m.collector.Mark,
		Collector: m.intake.state,
		Tell:      func(f selftest.Finding) { tell(testFinding(f)) },
	}
	return test.Run(ctx, visited)
}

// testNote is a file that tells when the last self-test began: what honeypots have
// to say about it may arrive after a restart.
func testNote(cfg Config) string { return filepath.Join(cfg.StateDir, "selftest") }

// rememberTest marks the visitors of a self-test that an earlier manager made.
func (m *manager) rememberTest() {
	info, err := os.Stat(testNote(m.cfg))
	if err != nil || time.Since(info.ModTime()) > collector.MarkFor {
		return
	}
	m.collector.MarkAll(helperapi.IsProbe, info.ModTime().Add(collector.MarkFor))
}

func visitable(s services.State) selftest.Service {
	service := selftest.Service{ID: s.ID, Label: s.Label, Ports: s.Ports, CatchAll: s.CatchAll, Raw: s.Raw}
	if s.Status != services.Running {
		service.Problem = "it is " + s.Status.String()
		if s.Reason != "" {
			service.Problem += ": " + s.Reason
		}
	}
	return service
}

func testFinding(f selftest.Finding) control.TestFinding {
	found := control.TestFinding{
		Service: f.ID, Label: f.Label, Verdict: string(f.Verdict), Part: f.Part, Text: f.Text, Seconds: f.Took.Seconds(), IPv6: f.IPv6,
	}
	if f.Port != (helperapi.Port{}) {
		found.Port = f.Port.String()
	}
	return found
}
