package control

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
)

func TestSelfTestTellsFindings(t *testing.T) {
	want := []TestFinding{
		{Service: "1", Label: "recon", Port: "23456/tcp", Verdict: "works", Text: "reported", Seconds: 6.2},
		{Service: "2", Label: "ssh", Port: "22/tcp", Verdict: "broken", Part: "honeypot", Text: "\x1b[2J it refuses"},
	}
	for _, good := range []bool{true, false} {
		sensor := &fixed{findings: want}
		if !good {
			sensor.err = errors.New("bad")
		}
		client := serve(t, sensor, zap.NewAtomicLevel())
		var got []TestFinding
		result, err := client.SelfTest(t.Context(), func(f TestFinding) error {
			got = append(got, f)
			return nil
		})
		if err != nil || result != good {
			t.Errorf("good %v, %v, want %v", result, err, good)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	var text strings.Builder
	if err := want[1].WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if got := text.String(); !strings.HasPrefix(got, "service 2 ssh, port 22/tcp: broken at the honeypot: ") || strings.Contains(got, "\x1b") {
		t.Errorf("text %q", got)
	}
}

func TestSelfTestCanBeLeft(t *testing.T) {
	client := serve(t, &fixed{findings: []TestFinding{{Verdict: "works"}}}, zap.NewAtomicLevel())
	leave := errors.New("enough")
	if _, err := client.SelfTest(t.Context(), func(TestFinding) error { return leave }); !errors.Is(err, leave) {
		t.Errorf("got %v", err)
	}
}
