package app

import (
	"context"

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
		Service: f.ID, Label: f.Label, Verdict: string(f.Verdict), Part: f.Part, Text: f.Text, Seconds: f.Took.Seconds(),
	}
	if f.Port != (helperapi.Port{}) {
		found.Port = f.Port.String()
	}
	return found
}
