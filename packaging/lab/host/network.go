package host

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Host names a machine of the lab.
type Host string

// The machines, and the one that holds the bridge between them.
const (
	Attacker Host = "attacker"
	Sensor   Host = "sensor"
	Server   Host = "server"
	LAN      Host = "lan"
)

// Interface is the name of the only interface of a machine.
const Interface = "eth0"

// Addresses of the machines, of the documentation networks (RFC 5737, 3849).
// The gateway is the bridge; it leads nowhere.
const (
	AttackerV4 = "192.0.2.10"
	AttackerV6 = "2001:db8::10"
	SensorV4   = "192.0.2.20"
	SensorV6   = "2001:db8::20"
	ServerV4   = "192.0.2.30"
	ServerV6   = "2001:db8::30"
	gatewayV4  = "192.0.2.1"
	gatewayV6  = "2001:db8::1"
)

const namespaceDir = "/run/netns"

func hosts() []Host { return []Host{LAN, Attacker, Sensor, Server} }

// Namespace returns the name of a machine's network namespace, as `ip netns`
// has it.
func (l *Lab) Namespace(h Host) string { return l.cfg.Prefix + "-" + string(h) }

// Command returns a command that runs on a machine. Its files are those of this
// machine.
func (l *Lab) Command(ctx context.Context, h Host, name string, args ...string) *exec.Cmd {
	enter := []string{"--net=" + l.namespacePath(h), name}
	return exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
}

func (l *Lab) namespacePath(h Host) string {
	return filepath.Join(namespaceDir, l.Namespace(h))
}

func (l *Lab) makeNetwork(ctx context.Context) error {
	for _, h := range hosts() {
		if err := output(exec.CommandContext(ctx, "ip", "netns", "add", l.Namespace(h))); err != nil {
			return fmt.Errorf("make namespace: %w", err)
		}
		if err := l.ip(ctx, h, "link set lo up"); err != nil {
			return err
		}
	}
	if err := l.ip(ctx, LAN, "link add lan type bridge"); err != nil {
		return err
	}
	if err := l.address(ctx, LAN, "lan", gatewayV4, gatewayV6); err != nil {
		return err
	}
	for h, addrs := range addresses() {
		if err := l.connect(ctx, h, addrs[0], addrs[1]); err != nil {
			return err
		}
	}
	return nil
}

// addresses are those of each machine but the LAN.
func addresses() map[Host][2]string {
	return map[Host][2]string{
		Attacker: {AttackerV4, AttackerV6},
		Sensor:   {SensorV4, SensorV6},
		Server:   {ServerV4, ServerV6},
	}
}

// Cut takes a machine from the LAN, or puts it back.
func (l *Lab) Cut(ctx context.Context, h Host, off bool) error {
	state := "up"
	if off {
		state = "down"
	}
	return l.ip(ctx, LAN, fmt.Sprintf("link set %s %s", h, state))
}

// connect plugs a machine into the LAN.
func (l *Lab) connect(ctx context.Context, h Host, v4, v6 string) error {
	pair := fmt.Sprintf("link add %s type veth peer name %s netns %s", h, Interface, l.Namespace(h))
	if err := l.ip(ctx, LAN, pair); err != nil {
		return err
	}
	if err := l.ip(ctx, LAN, fmt.Sprintf("link set %s master lan up", h)); err != nil {
		return err
	}
	if err := l.address(ctx, h, Interface, v4, v6); err != nil {
		return err
	}
	if err := l.ip(ctx, h, "route add default via "+gatewayV4); err != nil {
		return err
	}
	return l.ip(ctx, h, "-6 route add default via "+gatewayV6+" dev "+Interface)
}

func (l *Lab) address(ctx context.Context, h Host, link, v4, v6 string) error {
	for _, args := range []string{
		"link set " + link + " up",
		"addr add " + v4 + "/24 dev " + link,
		// Addresses that are usable at once: no one else is on this LAN.
		"addr add " + v6 + "/64 dev " + link + " nodad",
	} {
		if err := l.ip(ctx, h, args); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) ip(ctx context.Context, h Host, args string) error {
	words := append([]string{"-n", l.Namespace(h)}, strings.Fields(args)...)
	return output(exec.CommandContext(ctx, "ip", words...))
}

// removeNetwork removes the namespaces, and with them every link and rule in
// them. It is no error when there is none.
func (l *Lab) removeNetwork(ctx context.Context) error {
	for _, h := range hosts() {
		if _, err := os.Stat(l.namespacePath(h)); os.IsNotExist(err) {
			continue
		}
		if err := output(exec.CommandContext(ctx, "ip", "netns", "delete", l.Namespace(h))); err != nil {
			return fmt.Errorf("remove namespace: %w", err)
		}
	}
	return nil
}

// output runs a command, and returns what it printed with its error.
func output(cmd *exec.Cmd) error {
	text, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(text)))
	}
	return nil
}
