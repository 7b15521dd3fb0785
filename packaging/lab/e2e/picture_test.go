package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
)

// picture is what the sensor's host looks like to its operator: a line for each
// rule, link, address, route and setting.
type picture map[string]bool

// noise are lines that change by themselves.
var noise = regexp.MustCompile(`nf_conntrack_count|neigh\..*\.(retrans|base_reach)|fs\.|kernel\.|random|inet_peer`)

// counted are numbers in lines that count.
var counted = regexp.MustCompile(`counter packets \d+ bytes \d+|expires \S+|preferred_lft \d+sec|valid_lft \d+sec|# handle \d+`)

// settle waits until the host's own addresses are past duplicate address
// detection: what appears by itself is not of the sensor.
func settle(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	eventually(t, "addresses of the host", func() error {
		out, err := s.Lab.Command(t.Context(), host.Sensor, "ip", "-6", "addr", "show", "tentative").Output()
		if err == nil && len(out) > 0 {
			err = fmt.Errorf("tentative: %s", out)
		}
		return err
	})
}

// look takes a picture of the sensor's host. Nothing of it is filtered by what
// the sensor is supposed to do.
func look(t *testing.T, s *scenario.Scenario) picture {
	t.Helper()
	seen := picture{}
	for _, command := range []string{
		"nft -s list ruleset", "ip -o link", "ip -o addr", "ip route show table all", "ip -6 route show table all",
		"ip rule", "ip -6 rule", "sysctl -a --pattern ^net", "ethtool -k eth0", "ethtool -k docker0",
	} {
		words := strings.Fields(command)
		out, err := s.Lab.Command(t.Context(), host.Sensor, words[0], words[1:]...).Output()
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		chain := ""
		for line := range strings.Lines(string(out)) {
			line = counted.ReplaceAllString(strings.TrimSpace(line), "")
			if noise.MatchString(line) || line == "" || line == "}" {
				continue
			}
			// A rule means nothing without its table and chain.
			if strings.HasPrefix(line, "table ") {
				chain = line
			}
			if strings.HasPrefix(line, "chain ") {
				chain = strings.Split(chain, " / ")[0] + " / " + line
			}
			seen[fmt.Sprintf("%s: %s", command, strings.TrimSpace(chain+" "+line))] = true
		}
	}
	return seen
}

// machineIsUntouched compares this machine before the lab and after it: its own
// rules, links, namespaces, mounts and control groups.
func machineIsUntouched(t *testing.T) {
	t.Helper()
	look := func() map[string]string {
		seen := map[string]string{}
		for _, command := range []string{
			"nft -s list ruleset", "ip -o link show up", "ip netns list", "ip route show table all",
			"findmnt -rn -o TARGET", "find /sys/fs/cgroup -maxdepth 2 -name honeysens*",
		} {
			words := strings.Fields(command)
			out, err := exec.Command(words[0], words[1:]...).Output()
			if err != nil {
				t.Errorf("%s: %v", command, err)
			}
			// iproute2 keeps its directory mounted once it was used.
			seen[command] = strings.ReplaceAll(string(out), "/run/netns\n", "")
		}
		return seen
	}
	before := look()
	t.Cleanup(func() {
		for command, text := range look() {
			if text != before[command] {
				t.Errorf("the lab changed the machine: %s\nbefore:\n%s\nafter:\n%s", command, before[command], text)
			}
		}
	})
}

// added returns the lines of a that are not in b.
func added(a, b picture) []string {
	var lines []string
	for line := range a {
		if !b[line] {
			lines = append(lines, line)
		}
	}
	return lines
}

// ours says which changes of the host a running sensor may make: its tables, its
// bridge with the veths of the services, what belongs to these links, the
// switches for forwarding, and commented rules in chains that would drop.
func ours(id string) *regexp.Regexp {
	bridge := "services-" + id[:6]
	return regexp.MustCompile(strings.Join([]string{
		`^nft -s list ruleset: table (inet|bridge) honeysens-` + id[:12] + `\b`,
		// Its comment is looked at by passageIsCommented: nft does not show those of iptables.
		`^nft -s list ruleset: table ip6? filter .*ct status dnat ct reply saddr (10\.10\.10\.0/24|fd[0-9a-f:]+/64) +counter accept$`,
		`^ip .*\b` + bridge + `\b`,
		`^ip .*\bveth[0-9a-f]+\b`,
		`^ip (-6 )?route show table all: .*\b10\.10\.10\.`,
		`^sysctl .*: net\.ipv[46]\.(conf|neigh)\.(` + bridge + `|veth[0-9a-f]+)\.`,
		`^sysctl .*: net\.mpls\.conf\.`,
		`^sysctl .*: net\.ipv4\.conf\.eth0\.forwarding = 1`,
		`^sysctl .*: net\.ipv6\.conf\.eth0\.(force_forwarding|forwarding) = 1`,
	}, "|"))
}

// hostUnchanged compares the host with a sensor to the one without.
func hostUnchanged(t *testing.T, s *scenario.Scenario, before picture) {
	t.Helper()
	allowed := ours(sensorID(t, s))
	now := look(t, s)
	for _, line := range added(now, before) {
		if !allowed.MatchString(line) {
			t.Errorf("the sensor added: %s", line)
		}
	}
	for _, line := range added(before, now) {
		// A setting that was changed shows as a line that went and one that came.
		if !regexp.MustCompile(`net\.ipv[46]\.conf\.eth0\.(force_)?forwarding`).MatchString(line) {
			t.Errorf("the sensor removed: %s", line)
		}
	}
	if len(added(now, before)) == 0 {
		t.Error("the sensor changed nothing: the comparison is blind")
	}
}

// hostIsAsBefore wants no trace of the sensor.
func hostIsAsBefore(t *testing.T, s *scenario.Scenario, before picture) {
	t.Helper()
	now := look(t, s)
	for _, line := range added(now, before) {
		t.Errorf("the sensor left behind: %s", line)
	}
	for _, line := range added(before, now) {
		t.Errorf("the sensor took away: %s", line)
	}
}

// passageIsCommented wants the way through Docker's firewall to be an ordinary
// iptables rule that says whose it is. With nftables Docker leaves what is not its
// own alone, so there is none.
func passageIsCommented(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	if s.Lab.Nftables() {
		return
	}
	out, err := s.Lab.Command(t.Context(), host.Sensor, "iptables-nft", "-S", "DOCKER-USER").CombinedOutput()
	if err != nil {
		t.Fatalf("list DOCKER-USER: %v: %s", err, out)
	}
	if want := `--comment honeysens-` + sensorID(t, s)[:12]; strings.Count(string(out), want) != 1 {
		t.Errorf("DOCKER-USER holds no rule, or several, with %s:\n%s", want, out)
	}
}

// sensorID returns the id of the sensor's container.
func sensorID(t *testing.T, s *scenario.Scenario) string {
	t.Helper()
	out, err := s.Compose(t.Context(), "ps", "-q", "--no-trunc", "sensor")
	labtest.Must(t, err)
	id := strings.TrimSpace(out)
	if len(id) != 64 {
		t.Fatalf("container id of the sensor is %q", id)
	}
	return id
}
