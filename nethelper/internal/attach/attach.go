package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/cni"
	"honeysens.org/dockersensor/cni/checksum"
	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Config says where things are.
type Config struct {
	// BinDir has the plug-ins.
	BinDir string
	// StateDir is where results and leases are kept, on a tmpfs.
	StateDir string
}

// Attachment is a service's place on the bridge.
type Attachment struct {
	ContainerID string
	V4, V6      netip.Addr
	// Port is the host's end of its veth pair, MAC the hardware address at the
	// service's end.
	Port string
	MAC  net.HardwareAddr
}

func (at Attachment) addresses() []netip.Addr {
	return slices.DeleteFunc([]netip.Addr{at.V4, at.V6}, func(addr netip.Addr) bool { return !addr.IsValid() })
}

// Attacher attaches and detaches sandboxes. It is not for concurrent use. What
// it did is kept by CNI in the state directory, so another one can go on.
type Attacher struct {
	cfg Config
	cni *libcni.CNIConfig
	log *zap.Logger
}

// New returns an attacher. Missing plug-ins are an error that names them.
func New(cfg Config, log *zap.Logger) (*Attacher, error) {
	for _, plugin := range cni.Plugins() {
		if _, err := os.Stat(filepath.Join(cfg.BinDir, plugin)); err != nil {
			return nil, fmt.Errorf("CNI plug-in: %w", err)
		}
	}
	if err := os.MkdirAll(cfg.leaseDir(), 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return &Attacher{cfg: cfg, cni: libcni.NewCNIConfigWithCacheDir([]string{cfg.BinDir}, cfg.StateDir, nil), log: log}, nil
}

func (c Config) leaseDir() string { return filepath.Join(c.StateDir, "leases") }

// Network is what services are attached to.
type Network struct {
	Layout link.Layout
	MTU    int
}

func (a *Attacher) list(n Network) (*libcni.NetworkConfigList, error) {
	raw, err := cni.Render(cni.Network{
		Bridge: n.Layout.Name, MTU: n.MTU, LeaseDir: a.cfg.leaseDir(),
		V4: n.Layout.V4, GatewayV4: n.Layout.GatewayV4, V6: n.Layout.V6, GatewayV6: n.Layout.GatewayV6,
	})
	if err != nil {
		return nil, err
	}
	list, err := libcni.NetworkConfFromBytes(raw)
	if err != nil {
		return nil, fmt.Errorf("read services.conflist: %w", err)
	}
	return list, nil
}

// Attach brings a sandbox to the bridge. One that is there already stays as it
// is, with its addresses; one with addresses of another network gets new ones.
func (a *Attacher) Attach(ctx context.Context, n Network, s *Sandbox) (Attachment, error) {
	list, err := a.list(n)
	if err != nil {
		return Attachment{}, err
	}
	known, err := a.known(list, s.ContainerID)
	if err != nil {
		return Attachment{}, fmt.Errorf("attach %.12s: %w", s.ContainerID, err)
	}
	if known != nil {
		if kept, err := a.keep(n, s, *known); kept || err != nil {
			return *known, err
		}
		if err := a.detach(ctx, n, list, *known); err != nil {
			return Attachment{}, err
		}
	}
	return a.add(ctx, n, list, s)
}

// keep tells whether the known attachment is still in force, and repairs what
// somebody else may have changed on the host's side.
func (a *Attacher) keep(n Network, s *Sandbox, known Attachment) (bool, error) {
	if !n.Layout.V4.Contains(known.V4) || known.V6.IsValid() != n.Layout.V6.IsValid() {
		return false, nil
	}
	if known.V6.IsValid() && !n.Layout.V6.Contains(known.V6) {
		return false, nil
	}
	leads, err := link.LeadsTo(known.Port, int(s.netns.Fd()))
	if err != nil || !leads {
		return false, err
	}
	if err := link.EnsurePort(known.Port, n.Layout.Name); err != nil {
		return false, err
	}
	if err := a.fix(n, known); err != nil {
		return false, err
	}
	return true, checksum.Off(known.Port)
}

// fix lets nobody but the service have its addresses.
func (a *Attacher) fix(n Network, at Attachment) error {
	for _, addr := range at.addresses() {
		if err := link.FixNeighbour(n.Layout.Name, addr, at.MAC); err != nil {
			return fmt.Errorf("attach %.12s: %w", at.ContainerID, err)
		}
	}
	return nil
}

func (a *Attacher) add(ctx context.Context, n Network, list *libcni.NetworkConfigList, s *Sandbox) (Attachment, error) {
	rt := &libcni.RuntimeConf{ContainerID: s.ContainerID, NetNS: s.path(), IfName: cni.IfName}
	result, err := a.cni.AddNetworkList(ctx, list, rt)
	if err != nil {
		return Attachment{}, a.undo(ctx, list, rt, err)
	}
	converted, err := current.NewResultFromResult(result)
	if err != nil {
		return Attachment{}, fmt.Errorf("attach %.12s: %w", s.ContainerID, err)
	}
	at, err := fromResult(s.ContainerID, converted)
	if err != nil {
		return Attachment{}, err
	}
	if err := a.fix(n, at); err != nil {
		return Attachment{}, a.undo(ctx, list, rt, err)
	}
	a.log.Info("attached service", zap.String("container", at.ContainerID), zap.String("port", at.Port),
		zap.Stringer("v4", at.V4), zap.Stringer("v6", at.V6))
	return at, nil
}

// undo takes back what the plug-ins did before one failed, and returns why.
func (a *Attacher) undo(ctx context.Context, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf, cause error) error {
	undoCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	undo := *rt
	if hasOwnNetwork(cause) {
		cause = &helperapi.Error{Kind: helperapi.KindConflict, Message: "the container has a network already; it must be started with network none"}
		// That eth0 is not ours to delete.
		undo.NetNS = ""
	}
	return errors.Join(fmt.Errorf("attach %.12s: %w", rt.ContainerID, cause), a.cni.DelNetworkList(undoCtx, list, &undo))
}

// hasOwnNetwork recognizes the one failure of the bridge plug-in that the
// manager can explain: something else has made an eth0 in the container.
func hasOwnNetwork(err error) bool {
	return strings.Contains(err.Error(), `container veth name ("`+cni.IfName+`")`)
}

// known returns what CNI remembers of a container, or nil.
func (a *Attacher) known(list *libcni.NetworkConfigList, containerID string) (*Attachment, error) {
	cached, err := a.cni.GetNetworkListCachedResult(list, &libcni.RuntimeConf{ContainerID: containerID, IfName: cni.IfName})
	if err != nil || cached == nil {
		return nil, err
	}
	result, err := current.NewResultFromResult(cached)
	if err != nil {
		return nil, fmt.Errorf("cached result: %w", err)
	}
	at, err := fromResult(containerID, result)
	if err != nil {
		return nil, err
	}
	return &at, nil
}

// fromResult reads the result of bridge: the bridge, the host's end, the
// container's end.
func fromResult(containerID string, result *current.Result) (Attachment, error) {
	at := Attachment{ContainerID: containerID}
	for i, iface := range result.Interfaces {
		if iface.Sandbox == "" && i > 0 {
			at.Port = iface.Name
		}
		if iface.Sandbox != "" {
			at.MAC, _ = net.ParseMAC(iface.Mac)
		}
	}
	for _, ip := range result.IPs {
		addr, _ := netip.AddrFromSlice(ip.Address.IP)
		if addr = addr.Unmap(); addr.Is4() {
			at.V4 = addr
		} else {
			at.V6 = addr
		}
	}
	if at.Port == "" || !at.V4.IsValid() || len(at.MAC) != 6 {
		return Attachment{}, fmt.Errorf("attach %.12s: the plug-ins' result names no veth, no hardware address or no address", containerID)
	}
	return at, nil
}
