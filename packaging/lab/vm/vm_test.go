package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/shared/nettest"
)

// An emulated machine needs minutes for what a real one does in seconds.
const (
	deployWithin = 15 * time.Minute
	readyWithin  = 10 * time.Minute
)

// TestVMDeployment deploys the archive by its guide on a stock Debian 13,
// attacks it from outside, reboots it, and cuts its power. Services and events
// come back by themselves.
func TestVMDeployment(t *testing.T) {
	nettest.Need(t, "qemu-system-x86_64", "ssh", "ip")
	s := labtest.New(t, "vm")
	labtest.Must(t, s.Up(t.Context()))
	// Port 22 is the machine's own: its ssh keeps it.
	s.Port = 2323
	labtest.Must(t, s.Assign(t.Context()))
	s.TargetV4, s.TargetV6 = Address, AddressV6
	machine := plug(t, s)

	labtest.Must(t, machine.Boot(t.Context()))
	t.Cleanup(func() { diagnose(t, machine) })
	deploy(t, s, machine)
	ready(t, s, time.Time{})
	engineUsesCgroup2(t, machine)
	labtest.Attack(t, s)

	t.Log(time.Now().Format(time.TimeOnly), "rebooting")
	labtest.Must(t, machine.Reboot(t.Context()))
	ready(t, s, machine.Booted())
	labtest.Attack(t, s)

	t.Log(time.Now().Format(time.TimeOnly), "cutting the power")
	labtest.Must(t, machine.PowerCut())
	labtest.Must(t, machine.Boot(t.Context()))
	ready(t, s, machine.Booted())
	labtest.Attack(t, s)
}

// plug connects a machine to the lab's LAN, with the sensor's archive on its
// second disk.
func plug(t *testing.T, s *scenario.Scenario) *VM {
	t.Helper()
	for _, args := range []string{"tuntap add dev vm mode tap", "link set vm master lan up"} {
		out, err := s.Lab.Command(t.Context(), host.LAN, "ip", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	work := t.TempDir()
	archive := labtest.Built(t, "HoneySens-Firmware-dockerx86-*.tar.gz")
	payload := filepath.Join(work, "payload.tar")
	out, err := exec.CommandContext(t.Context(), "tar", "-cf", payload, "-C", filepath.Dir(archive), filepath.Base(archive)).CombinedOutput()
	if err != nil {
		t.Fatalf("pack payload: %v: %s", err, out)
	}
	dir := filepath.Join(labtest.Root(t), "out", "cache", "vm")
	machine, err := New(t.Context(), dir, work, payload, s.Lab.Namespace(host.LAN), "vm")
	labtest.Must(t, err)
	t.Cleanup(func() {
		if err := machine.Close(); err != nil {
			t.Errorf("switch the machine off: %v", err)
		}
	})
	return machine
}

// deploy does what the guide says, with the interface that this machine has.
func deploy(t *testing.T, s *scenario.Scenario, machine *VM) {
	t.Helper()
	t.Log(time.Now().Format(time.TimeOnly), "deploying by the guide")
	ctx, cancel := context.WithTimeout(t.Context(), deployWithin)
	defer cancel()
	do := func(command string) {
		t.Helper()
		_, err := machine.Run(ctx, command)
		labtest.Must(t, err)
	}
	do("mkdir /opt/sensor && cd /opt && tar -xf /dev/vdb && tar -xzf HoneySens-Firmware-*.tar.gz -C sensor && rm HoneySens-Firmware-*.tar.gz")
	do(`cd /opt/sensor && iface=$(ip -o -4 route show default | sed 's/.* dev \([^ ]*\).*/\1/') && sed -i "s/IFACE=eth0/IFACE=$iface/" docker-compose.yml`)
	do("cd /opt/sensor && docker load -i firmware.img")
	config, err := s.Configuration(ctx)
	labtest.Must(t, err)
	file, err := os.Open(config)
	labtest.Must(t, err)
	defer file.Close()
	labtest.Must(t, machine.Put(ctx, "/opt/sensor/conf/"+filepath.Base(config), file))
	do("cd /opt/sensor && HOST_PWD=$(pwd) docker compose up -d")
}

func ready(t *testing.T, s *scenario.Scenario, after time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	labtest.Must(t, s.Ready(ctx, after, s.Recon.ID, s.Honeypot.ID))
	t.Log(time.Now().Format(time.TimeOnly), "the sensor serves")
}

// engineUsesCgroup2 wants the honeypot in a group of the unified hierarchy, with
// its limit of memory in force.
func engineUsesCgroup2(t *testing.T, machine *VM) {
	t.Helper()
	out, err := machine.Run(t.Context(), `pid=$(grep -l honeypot.py /proc/[0-9]*/cmdline | grep -v self | cut -d/ -f3 | head -n 1) && cat "/sys/fs/cgroup$(sed -n s/^0:://p "/proc/$pid/cgroup")/memory.max"`)
	if want := fmt.Sprint(512 << 20); err != nil || strings.TrimSpace(out) != want {
		t.Errorf("memory of the honeypot: %v: limit is %q, want %s", err, out, want)
	}
}

func diagnose(t *testing.T, machine *VM) {
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	out, err := machine.Run(ctx, "cd /opt/sensor && HOST_PWD=$(pwd) docker compose exec -T sensor manager status; HOST_PWD=$(pwd) docker compose logs --tail 100")
	t.Logf("sensor: %v\n%s", err, out)
}
