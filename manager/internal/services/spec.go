package services

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strconv"
)

// Limits of sandboxes. The pause program needs a few kilobytes; the engine's
// runtime, which starts it within the same limits, needs the rest.
const (
	sandboxMemory = 32 << 20
	sandboxPIDs   = 64
)

// honeypotCaps are those that honeypots in the field use; manager/README.md says
// which uses what. Of Docker's defaults AUDIT_WRITE, FSETID, MKNOD, SETFCAP and
// SETPCAP are not among them. The namespace that NET_ADMIN is for holds nothing but
// the honeypot, unless it has raw network access.
func honeypotCaps() []string {
	return []string{
		"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW", "SETGID", "SETUID", "SYS_CHROOT",
	}
}

// envCollector names where a honeypot reports.
const envCollector = "COLLECTOR_HOST="

// specVersion changes when Docker makes something else of the same Spec.
const specVersion = 3

// fingerprint tells specs apart. It is kept in a label of the container: one
// that was made from another spec is replaced. Names can be changed while the
// container runs, and the same image can have several.
func (s Spec) fingerprint() string {
	s.Name, s.Ref = "", ""
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%d %#v", specVersion, s)))[:16]
}

// Names are as the server and operators know them. Ids have no dot, so the
// sandbox of one can never have the name of another's honeypot.
func honeypotName(id string) string { return "s" + id }
func sandboxName(id string) string  { return "s" + id + ".net" }

// formerName is that of a container which serves until its successor does.
func formerName(name string) string { return name + ".old" }

func sandboxSpec(id, pauseImage string) Spec {
	return Spec{
		Name: sandboxName(id), Role: Sandbox, Service: id, Image: pauseImage, Network: "none",
		ReadOnly: true, Limits: Limits{Memory: sandboxMemory, PIDs: sandboxPIDs},
	}
}

// honeypotSpec returns the spec of a service whose image is in the engine.
// sandbox is its container id, or "" for raw network access.
func (s *Services) honeypotSpec(p plan, image, sandbox string, gateway netip.Addr) Spec {
	spec := Spec{
		Name: honeypotName(p.ID), Role: Honeypot, Service: p.ID, Image: image, Ref: p.Image, Network: "container:" + sandbox,
		Env: []string{
			envCollector + gateway.String(),
			"COLLECTOR_PORT=" + strconv.Itoa(int(s.cfg.CollectorPort)),
		},
		Caps: honeypotCaps(), Limits: s.cfg.Limits,
	}
	if p.Raw {
		spec.Network = "host"
		spec.Env = append(spec.Env, "INTERFACE="+s.cfg.Interface)
	}
	return spec
}
