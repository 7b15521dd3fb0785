package attach

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/cni"
	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/shared/helperapi"
)

// undoTimeout bounds what is done after a failure.
const undoTimeout = 20 * time.Second

// Attachments returns all that CNI remembers.
func (a *Attacher) Attachments(n Network) ([]Attachment, error) {
	list, err := a.list(n)
	if err != nil {
		return nil, err
	}
	cached, err := a.cni.GetCachedAttachments("")
	if err != nil {
		return nil, fmt.Errorf("list attachments: %w", err)
	}
	var all []Attachment
	for _, c := range cached {
		if c.Network != cni.NetworkName || !helperapi.ValidContainerID(c.ContainerID) {
			continue
		}
		at, err := a.known(list, c.ContainerID)
		if err != nil || at == nil {
			// Half written by a killed helper: only its lease is known.
			at = &Attachment{ContainerID: c.ContainerID}
		}
		all = append(all, *at)
	}
	return all, nil
}

// Prune detaches every container that keep does not have, whether it still
// lives or not, and removes what killed helpers and plug-ins have left: ports of
// the bridge and leases that belong to no attachment.
func (a *Attacher) Prune(ctx context.Context, n Network, keep map[string]bool) error {
	list, err := a.list(n)
	if err != nil {
		return err
	}
	all, err := a.Attachments(n)
	if err != nil {
		return err
	}
	var errs []error
	var used, unwanted []Attachment
	for _, at := range all {
		if keep[at.ContainerID] {
			used = append(used, at)
			continue
		}
		unwanted = append(unwanted, at)
		// All at once, and then the plug-ins at their pace: time may run out.
		errs = append(errs, removePort(at))
	}
	errs = append(errs, removeStrayPorts(n.Layout.Name, used))
	for _, at := range unwanted {
		errs = append(errs, a.detach(ctx, n, list, at))
	}
	errs = append(errs, a.releaseStrayLeases(ctx, list, used))
	return errors.Join(errs...)
}

// detach removes the veth pair by its end on the host, then lets CNI release
// the addresses. The namespace is not entered: it may have gone.
func (a *Attacher) detach(ctx context.Context, n Network, list *libcni.NetworkConfigList, at Attachment) error {
	if err := removePort(at); err != nil {
		return err
	}
	for _, addr := range at.addresses() {
		if err := link.LoseNeighbour(n.Layout.Name, addr); err != nil {
			return fmt.Errorf("detach %.12s: %w", at.ContainerID, err)
		}
	}
	if err := a.release(ctx, list, at.ContainerID); err != nil {
		return err
	}
	a.log.Info("detached service", zap.String("container", at.ContainerID), zap.String("port", at.Port))
	return nil
}

func removePort(at Attachment) error {
	if at.Port == "" {
		return nil
	}
	if err := link.RemovePort(at.Port); err != nil {
		return fmt.Errorf("detach %.12s: %w", at.ContainerID, err)
	}
	return nil
}

func (a *Attacher) release(ctx context.Context, list *libcni.NetworkConfigList, containerID string) error {
	if err := a.cni.DelNetworkList(ctx, list, &libcni.RuntimeConf{ContainerID: containerID, IfName: cni.IfName}); err != nil {
		return fmt.Errorf("detach %.12s: %w", containerID, err)
	}
	return nil
}

func removeStrayPorts(bridge string, used []Attachment) error {
	ports, err := link.Ports(bridge)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, at := range used {
		wanted[at.Port] = true
	}
	var errs []error
	for _, port := range ports {
		if !wanted[port] {
			errs = append(errs, link.RemovePort(port))
		}
	}
	return errors.Join(errs...)
}

// releaseStrayLeases: a plug-in that was killed between lease and result leaves
// its lease behind. host-local keeps each as a file named after the address, with
// the container id in its first line.
func (a *Attacher) releaseStrayLeases(ctx context.Context, list *libcni.NetworkConfigList, used []Attachment) error {
	dir := filepath.Join(a.cfg.leaseDir(), cni.NetworkName)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	wanted := map[string]bool{}
	for _, at := range used {
		wanted[at.ContainerID] = true
	}
	var errs []error
	for _, entry := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue
		}
		owner, _, _ := strings.Cut(string(raw), "\r\n")
		if helperapi.ValidContainerID(owner) && !wanted[owner] {
			errs = append(errs, a.release(ctx, list, owner))
		}
	}
	return errors.Join(errs...)
}
