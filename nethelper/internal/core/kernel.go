package core

import (
	"context"
	"os"
	"strconv"
	"strings"

	"honeysens.org/dockersensor/nethelper/internal/attach"
	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/nethelper/internal/policy"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Kernel is the Host of the calling thread's network namespace.
type Kernel struct{}

// Uses is link.Uses.
func (Kernel) Uses(bridge string) ([]policy.Use, error) { return link.Uses(bridge) }

// MTU is link.MTU.
func (Kernel) MTU(name string) (int, error) { return link.MTU(name) }

// HasIPv6 is link.HasIPv6.
func (Kernel) HasIPv6() bool { return link.HasIPv6() }

// Prove is attach.Prove.
func (Kernel) Prove(claim helperapi.Sandbox) (*attach.Sandbox, error) { return attach.Prove(claim) }

// Connections is the size of conntrack's table, or 0 when that cannot be known.
func (Kernel) Connections() uint32 {
	raw, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	if err != nil {
		return 0
	}
	size, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(size)
}

// WatchLinks is link.Watch.
func (Kernel) WatchLinks(ctx context.Context, changed func()) error { return link.Watch(ctx, changed) }
