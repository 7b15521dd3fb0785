package host

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
)

// Reboot cuts the power of the sensor host and starts it again: every process of
// it ends at once, all that its kernel knew is gone, and the engine starts what is
// to be restarted. It returns when the engine answers.
func (l *Lab) Reboot(ctx context.Context) error {
	if err := l.endProcesses(ctx, Sensor); err != nil {
		return err
	}
	if err := removeCgroups(ctx, l.cgroup()); err != nil {
		return err
	}
	// The kernel removes a namespace in its own time; its cable to the LAN goes at
	// once.
	remove := exec.CommandContext(ctx, "ip", "netns", "delete", l.Namespace(Sensor))
	if err := errors.Join(l.ip(ctx, LAN, "link delete "+string(Sensor)), output(remove)); err != nil {
		return fmt.Errorf("end the sensor host: %w", err)
	}
	if err := output(exec.CommandContext(ctx, "ip", "netns", "add", l.Namespace(Sensor))); err != nil {
		return fmt.Errorf("make namespace: %w", err)
	}
	if err := l.ip(ctx, Sensor, "link set lo up"); err != nil {
		return err
	}
	addrs := addresses()[Sensor]
	if err := l.connect(ctx, Sensor, addrs[0], addrs[1]); err != nil {
		return err
	}
	return l.startEngine(ctx)
}
