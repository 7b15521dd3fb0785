package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/safchain/ethtool"

	"honeysens.org/dockersensor/cni/checksum"
	"honeysens.org/dockersensor/shared/nettest"
)

// build compiles the plug-ins, and cnitool of the same release as the library.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	list, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", "github.com/containernetworking/cni").Output()
	if err != nil {
		t.Fatalf("release of the library: %v", err)
	}
	const upstream = "github.com/containernetworking/plugins/plugins/"
	for _, args := range [][]string{
		{"build", "-o", dir + "/", ".", upstream + "main/bridge", upstream + "ipam/host-local"},
		// As a program of its own, so that its dependencies are none of ours.
		{"install", "github.com/containernetworking/cni/cnitool@" + strings.TrimSpace(string(list))},
	} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
	}
	return dir
}

// tool runs cnitool on a host, for a container.
type tool struct {
	t               *testing.T
	bin, conf, name string
	host, container *nettest.Host
}

func newTool(t *testing.T, bin string) *tool {
	t.Helper()
	nettest.Need(t, "ip")
	c := &tool{
		t: t, bin: bin, conf: t.TempDir(), host: nettest.NewHost(t, "host"), container: nettest.NewHost(t, "container"),
		// cnitool keeps results in one place for the whole machine, by this name.
		name: fmt.Sprintf("offload-test-%d", os.Getpid()),
	}
	list := fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"plugins":[
		{"type":"bridge","bridge":"br0","ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.10.10.0/24"}]]}},
		{"type":"offload"}]}`, c.name, t.TempDir())
	if err := os.WriteFile(filepath.Join(c.conf, "10.conflist"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *tool) try(command string) (string, error) {
	c.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(c.bin, "cnitool"), command, c.name, c.container.Path())
	cmd.Env = append(os.Environ(), "CNI_PATH="+c.bin, "NETCONFPATH="+c.conf)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := c.host.Start(cmd); err != nil {
		c.t.Fatal(err)
	}
	err := cmd.Wait()
	return out.String(), err
}

func (c *tool) run(command string) string {
	c.t.Helper()
	out, err := c.try(command)
	if err != nil {
		c.t.Fatalf("cnitool %s: %v\n%s", command, err, out)
	}
	return out
}

func wantOff(t *testing.T, host *nettest.Host, iface string) {
	t.Helper()
	err := host.Do(func() error {
		off, err := checksum.IsOff(iface)
		if err == nil && !off {
			err = errors.New("on")
		}
		return err
	})
	if err != nil {
		t.Errorf("checksum offload of %s: %v", iface, err)
	}
}

func switchOn(t *testing.T, host *nettest.Host, iface string) {
	t.Helper()
	err := host.Do(func() error {
		card, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer card.Close()
		return card.Change(iface, map[string]bool{"tx-checksum-ip-generic": true})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNetnsWorksWithCnitool(t *testing.T) {
	c := newTool(t, build(t))
	c.run("status")
	var result current.Result
	if out := c.run("add"); json.Unmarshal([]byte(out), &result) != nil || len(result.Interfaces) != 3 || len(result.IPs) != 1 {
		t.Fatalf("result of add: %s", out)
	}
	for _, iface := range result.Interfaces {
		if iface.Sandbox == "" {
			wantOff(t, c.host, iface.Name)
		} else {
			wantOff(t, c.container, iface.Name)
		}
	}
	c.run("check")
	switchOn(t, c.container, "eth0")
	if out, err := c.try("check"); err == nil || !strings.Contains(out, "checksum offload of eth0 is on") {
		t.Errorf("check with the offload on: %v\n%s", err, out)
	}
	if err := c.container.Do(func() error { return checksum.Off("eth0") }); err != nil {
		t.Error(err)
	}
	c.run("check")
	c.run("del")
	c.run("del")
	if out, err := c.container.Try("ip", "link", "show", "eth0"); err == nil {
		t.Errorf("the interface is still there: %s", out)
	}
	c.run("add")
	c.run("gc")
	if out, err := c.container.Try("ip", "link", "show", "eth0"); err == nil {
		t.Errorf("the interface is still there after garbage collection: %s", out)
	}
}

// call speaks the protocol of plug-ins (CNI specification 1.1, section 2).
func call(t *testing.T, dir, command, config string, env ...string) (map[string]any, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "offload"))
	cmd.Env = append([]string{"CNI_COMMAND=" + command, "CNI_PATH=" + dir}, env...)
	cmd.Stdin = strings.NewReader(config)
	out, err := cmd.Output()
	answer := map[string]any{}
	if len(out) > 0 && json.Unmarshal(out, &answer) != nil {
		t.Fatalf("%s answers %q", command, out)
	}
	return answer, err
}

func TestProtocol(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	attachment := []string{"CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/no-such-one"}
	const (
		alone   = `{"cniVersion":"1.1.0","name":"n","type":"offload"}`
		chained = `{"cniVersion":"1.1.0","name":"n","type":"offload","prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"no-such-if"}]}}`
		empty   = `{"cniVersion":"1.1.0","name":"n","type":"offload","prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.3/24"}]}}`
	)
	cases := map[string]struct {
		command, config string
		env             []string
		// code is that of the error, 0 for none.
		code float64
	}{
		"add hands the result on":     {"ADD", empty, attachment, 0},
		"add at the head of a list":   {"ADD", alone, attachment, 7},
		"add to what is not there":    {"ADD", chained, attachment, 999},
		"add without a container":     {"ADD", empty, nil, 4},
		"add with nonsense":           {"ADD", `{"cniVersion":"1.1.0","name":"n","type":"offload","prevResult":7}`, attachment, 6},
		"check":                       {"CHECK", empty, attachment, 0},
		"check without a result":      {"CHECK", alone, attachment, 7},
		"check of what is not there":  {"CHECK", chained, attachment, 999},
		"check before it was defined": {"CHECK", strings.ReplaceAll(empty, "1.1.0", "0.3.1"), attachment, 1},
		"delete":                      {"DEL", chained, attachment, 0},
		"delete without a result":     {"DEL", alone, attachment, 0},
		"delete without a namespace":  {"DEL", alone, attachment[:2], 0},
		"collect":                     {"GC", `{"cniVersion":"1.1.0","name":"n","type":"offload","cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}`, nil, 0},
		"collect before 1.1":          {"GC", strings.ReplaceAll(alone, "1.1.0", "1.0.0"), nil, 1},
		"status":                      {"STATUS", alone, nil, 0},
		"status before 1.1":           {"STATUS", strings.ReplaceAll(alone, "1.1.0", "1.0.0"), nil, 1},
		"another version":             {"ADD", strings.ReplaceAll(empty, "1.1.0", "9.0.0"), attachment, 1},
		"another command":             {"FLUSH", alone, attachment, 4},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			answer, err := call(t, dir, c.command, c.config, c.env...)
			if code, _ := answer["code"].(float64); (err != nil) != (c.code != 0) || code != c.code {
				t.Errorf("answered %v, %v; want code %v", answer, err, c.code)
			}
			if c.code == 0 && c.command == "ADD" && (answer["cniVersion"] != "1.1.0" || answer["ips"] == nil) {
				t.Errorf("result %v", answer)
			}
		})
	}
	answer, err := call(t, dir, "VERSION", `{"cniVersion":"1.1.0"}`)
	supported, _ := answer["supportedVersions"].([]any)
	if err != nil || !slices.Contains(supported, any("1.1.0")) {
		t.Errorf("versions %v, %v", answer, err)
	}
}
