package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	for _, name := range []string{"IFACE", "HOST_PORTS", "PROTECTED_PORTS", "EGRESS", "LOG_LVL"} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	var out bytes.Buffer
	app := newCLI()
	app.Writer, app.ErrWriter = &out, &out
	err := app.RunContext(t.Context(), append([]string{"nethelper"}, args...))
	return out.String(), err
}

func TestRulesOfTheExample(t *testing.T) {
	out, err := run(t, "rules", "--iface", "wan0", "--sensor-id", testID, "--protected-ports", "8443/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"table inet honeysens-a1b2c3d4a1b2 {", `"wan0"`, "services-a1b2c3", "10.10.10.2", "8443"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
}

func TestRulesOfAFile(t *testing.T) {
	want := exampleNetwork("eth0")
	want.Services = want.Services[:1]
	want.Services[0].Ports[0].Port.Number = 2323
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "spec.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "rules", "--sensor-id", testID, "--spec", path)
	if err != nil || !strings.Contains(out, "2323") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNetnsKernelTakesTheRulesOfTheExample(t *testing.T) {
	nettest.Need(t, "nft")
	out, err := run(t, "rules", "--sensor-id", testID)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rules.nft")
	if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	host, _ := hosttest.NewHosts(t)
	host.Run("nft", "-c", "-f", path)
}

func TestFlagsThatAreWrong(t *testing.T) {
	spec := filepath.Join(t.TempDir(), "spec.json")
	if err := os.WriteFile(spec, []byte(`{"rules":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		args []string
		want string
	}{
		"no uid":           {[]string{"serve"}, "allow-uid"},
		"negative uid":     {[]string{"serve", "--allow-uid", "-1", "--sensor-id", testID}, "no such user"},
		"huge uid":         {[]string{"serve", "--allow-uid", "4294967296", "--sensor-id", testID}, "no such user"},
		"host ports":       {[]string{"rules", "--host-ports", "mine"}, "protect or assigned"},
		"protected ports":  {[]string{"rules", "--protected-ports", "22/sctp"}, "tcp or udp"},
		"egress":           {[]string{"rules", "--egress", "some"}, "deny, internet or all"},
		"interface":        {[]string{"rules", "--iface", "a/b"}, "IFACE"},
		"log level":        {[]string{"serve", "--allow-uid", "0", "--sensor-id", testID, "--log-level", "loud"}, "log level"},
		"sensor id":        {[]string{"rules", "--sensor-id", "xyz"}, "container id"},
		"short cleanup id": {[]string{"cleanup", "--sensor-id", "abc"}, "at least 12"},
		"no such file":     {[]string{"rules", "--spec", spec + ".none"}, "no such file"},
		"unknown fields":   {[]string{"rules", "--spec", spec}, "unknown field"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			out, err := run(t, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want one with %q\n%s", err, c.want, out)
			}
		})
	}
}

func TestExampleIsAValidNetwork(t *testing.T) {
	example := exampleNetwork("eth0")
	if err := example.Validate(); err != nil {
		t.Error(err)
	}
	if _, err := helperapi.DecodeNetwork([]byte("{}")); err == nil {
		t.Error("nothing is a valid network")
	}
}
