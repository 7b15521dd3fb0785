package attach

import (
	"strings"
	"testing"
)

func TestNamesContainer(t *testing.T) {
	own, sensor := strings.Repeat("a", 64), strings.Repeat("b", 64)
	cases := map[string]struct {
		cgroup string
		want   bool
	}{
		"v2":                         {"0::/docker/" + own + "\n", true},
		"v2, nested":                 {"0::/docker/" + sensor + "/docker/" + own + "\n", true},
		"v2, relative":               {"0::/../" + own + "\n", true},
		"systemd driver":             {"0::/system.slice/docker-" + own + ".scope\n", true},
		"below the container":        {"0::/docker/" + own + "/init\n", true},
		"v1, mixed":                  {"2:cpu:/docker/" + own + "\n1:name=systemd:/\n0::/\n", true},
		"only in an outer place":     {"0::/docker/" + own + "/docker/" + sensor + "\n", false},
		"another one":                {"0::/docker/" + sensor + "\n", false},
		"two stories":                {"2:cpu:/docker/" + own + "\n1:pids:/docker/" + sensor + "\n", false},
		"none":                       {"0::/\n", false},
		"as part of a name":          {"0::/docker/x" + own + "\n", false},
		"as a controller":            {"1:" + own + ":/\n", false},
		"empty":                      {"", false},
		"nonsense":                   {"docker/" + own, false},
		"colon in the path":          {"0::/a:b/" + own + "\n", true},
		"deleted":                    {"0::/docker/" + own + " (deleted)\n", false},
		"short id":                   {"0::/docker/" + own[:12] + "\n", false},
		"scope of another runtime":   {"0::/x/crio-" + own + ".scope\n", false},
		"upper case is not the same": {"0::/docker/" + strings.ToUpper(own) + "\n", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := namesContainer(c.cgroup, "0::/\n", own); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestNamesContainerInTheSensor has the helper in a container itself.
func TestNamesContainerInTheSensor(t *testing.T) {
	sandbox, sensor, other := strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64)
	helper := "1:cpu:/docker/" + sensor + "\n0::/docker/" + sensor + "\n"
	cases := map[string]struct {
		cgroup, claimed string
		want            bool
	}{
		"unified hierarchy not used": {"1:cpu:/docker/" + sensor + "/docker/" + sandbox + "\n0::/docker/" + sensor + "\n", sandbox, true},
		"another one in it":          {"1:cpu:/docker/" + sensor + "/docker/" + sandbox + "\n0::/docker/" + other + "\n", sandbox, false},
		"the sensor itself":          {helper, sensor, false},
		"a process of the sensor":    {helper, sandbox, false},
		"a process of another":       {"1:cpu:/docker/" + other + "\n0::/docker/" + sensor + "\n", sandbox, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := namesContainer(c.cgroup, helper, c.claimed); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestNamesContainerBesideTheEngine has helper and engine in containers of their
// own.
func TestNamesContainerBesideTheEngine(t *testing.T) {
	sandbox, engine, other := strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64)
	helper := strings.Repeat("d", 64)
	own := "1:cpu:/docker/" + helper + "\n0::/docker/" + helper + "\n"
	inside := "1:cpu:/docker/" + engine + "/docker/" + sandbox + "\n"
	cases := map[string]struct {
		cgroup, claimed string
		want            bool
	}{
		"unified hierarchy not used":         {inside + "0::/docker/" + engine + "\n", sandbox, true},
		"one that the helper's own is used":  {inside + "0::/docker/" + helper + "\n", sandbox, true},
		"another container in it":            {inside + "0::/docker/" + other + "\n", sandbox, false},
		"another container of the engine":    {inside + "2:pids:/docker/" + engine + "/docker/" + other + "\n", sandbox, false},
		"a process of the engine":            {"1:cpu:/docker/" + engine + "\n0::/docker/" + engine + "\n", sandbox, false},
		"the engine, claimed by its own id":  {"1:cpu:/docker/" + helper + "/docker/" + engine + "\n0::/docker/" + helper + "\n", sandbox, false},
		"the helper itself":                  {own, helper, false},
		"a container around, not the claims": {inside + "0::/docker/" + engine + "\n", engine, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := namesContainer(c.cgroup, own, c.claimed); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func FuzzNamesContainer(f *testing.F) {
	own := strings.Repeat("a", 64)
	f.Add("0::/docker/" + own + "\n")
	f.Add("1:x:relative/" + own)
	f.Add("0::..")
	f.Fuzz(func(t *testing.T, cgroup string) {
		if namesContainer(cgroup, "0::/\n", own) && !strings.Contains(cgroup, own) {
			t.Errorf("found in %q", cgroup)
		}
	})
}
