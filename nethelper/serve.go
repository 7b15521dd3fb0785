package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/nethelper/internal/api"
	"honeysens.org/dockersensor/nethelper/internal/attach"
	"honeysens.org/dockersensor/nethelper/internal/confine"
	"honeysens.org/dockersensor/nethelper/internal/core"
	"honeysens.org/dockersensor/nethelper/internal/iface"
	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/nethelper/internal/passage"
	"honeysens.org/dockersensor/nethelper/internal/policy"
	"honeysens.org/dockersensor/nethelper/internal/probe"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/logging"
	"honeysens.org/dockersensor/shared/unixsock"
	"honeysens.org/dockersensor/shared/version"
)

const (
	// adoptTimeout bounds the take-over of what a killed helper had in force.
	adoptTimeout = time.Minute
	// removeTimeout stays below the ten seconds that an engine waits after SIGTERM.
	removeTimeout = 8 * time.Second
	// gcPercent trades time, of which the helper needs little, for memory.
	gcPercent = 20
	// socketMode lets the group of the directory in, which is set-group-id.
	socketMode = 0o660
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "keep the host's network as the sensor's manager wants it",
		Flags: append(sensorFlags(),
			&cli.PathFlag{Name: "socket", Value: "/run/sensor/nethelper.sock", Usage: "serve the API on this unix `PATH`"},
			&cli.Int64Flag{Name: "allow-uid", Required: true, Usage: "`UID` that may ask for changes; root may read, all others are refused"},
			&cli.PathFlag{Name: "cni-bin-dir", Value: "/opt/cni/bin", Usage: "`DIR` with the plug-ins bridge, host-local and offload"},
			&cli.PathFlag{Name: "state-dir", Value: "/run/nethelper", Usage: "`DIR` on a tmpfs for what a helper that takes over must know"},
			&cli.StringFlag{Name: "log-level", EnvVars: []string{"LOG_LVL"}, Value: "info", Usage: "debug, info, warn or error"},
			&cli.PathFlag{Name: "resolv-conf", Usage: "write the name servers of the interface to `FILE` (default: to none); for the sensor's container, not for a host"},
			&cli.IntFlag{Name: "notification-fd", Usage: "write a newline to this descriptor once the socket is served (s6); 0 for none"},
		),
		Action: func(c *cli.Context) error {
			sensor, err := readSensor(c)
			if err != nil {
				return err
			}
			uid, err := userID(c.Int64("allow-uid"))
			if err != nil {
				return err
			}
			level, err := logging.ParseLevel(c.String("log-level"))
			if err != nil {
				return err
			}
			log, _, err := logging.New("nethelper", level)
			if err != nil {
				return err
			}
			s := serving{
				sensor: sensor, writer: uid, socket: c.Path("socket"), log: log,
				binDir: c.Path("cni-bin-dir"), stateDir: c.Path("state-dir"), resolvConf: c.Path("resolv-conf"), notify: c.Int("notification-fd"),
			}
			return s.run(c.Context)
		},
	}
}

func userID(given int64) (uint32, error) {
	if given < 0 || given > math.MaxUint32 {
		return 0, fmt.Errorf("allow-uid %d: there is no such user", given)
	}
	return uint32(given), nil
}

// serving is one run of serve.
type serving struct {
	sensor           core.Config
	writer           uint32
	socket           string
	binDir, stateDir string
	resolvConf       string
	notify           int
	log              *zap.Logger
}

// run serves until ctx ends, and then removes everything. When something breaks
// instead, all stays for the next helper.
func (s serving) run(ctx context.Context) error {
	debug.SetGCPercent(gcPercent)
	if err := confine.Enter(); err != nil {
		return err
	}
	health, err := s.health()
	if err != nil {
		return err
	}
	listener, err := unixsock.Listen(s.socket, socketMode)
	if err != nil {
		return err
	}
	defer listener.Close()
	table, err := nft.Open(s.log.Named("nft"), nft.Config{})
	if err != nil {
		return err
	}
	defer table.Close()
	network, err := s.core(table)
	if err != nil {
		return err
	}
	s.adopt(ctx, network)
	serves := frugal{Core: network, own: ownPages()}
	serves.giveBack()
	server := api.New(api.Config{Writer: s.writer, Health: health}, serves, s.log.Named("api"))
	if err := notifyReady(s.notify); err != nil {
		return err
	}
	s.log.Info("serving", zap.String("socket", s.socket), zap.String("interface", s.sensor.Rights.Iface),
		zap.String("sensor", s.sensor.SensorID), zap.Strings("capabilities", health.Capabilities))
	err = together(ctx, network.Run, func(ctx context.Context) error { return server.Serve(ctx, listener) })
	if err != nil || ctx.Err() == nil {
		return err
	}
	return s.remove(network)
}

// together runs both until ctx ends or one fails, and waits for both.
func together(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(parts))
	var group sync.WaitGroup
	for i, part := range parts {
		group.Go(func() {
			defer cancel()
			errs[i] = part(ctx)
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func (s serving) health() (helperapi.Health, error) {
	capabilities, err := confine.Effective()
	return helperapi.Health{Version: version.Revision, Capabilities: capabilities}, err
}

func (s serving) core(table *nft.Table) (*core.Core, error) {
	way, err := passage.New(s.log.Named("passage"), s.sensor.SensorID, nft.Config{})
	if err != nil {
		return nil, err
	}
	services, err := attach.New(attach.Config{BinDir: s.binDir, StateDir: s.stateDir}, s.log.Named("attach"))
	if err != nil {
		return nil, err
	}
	s.sensor.StateFile = filepath.Join(s.stateDir, "network.json")
	return core.New(s.sensor, core.Parts{
		Table: table, Passage: way, Services: services, Host: core.Kernel{},
		Links:  link.New(s.sensor.SensorID, s.sensor.Rights.Iface),
		Prober: probe.New(s.sensor.Rights.Iface),
		Interface: iface.New(iface.Config{
			SensorID: s.sensor.SensorID, Iface: s.sensor.Rights.Iface, Dir: s.stateDir, ResolvConf: s.resolvConf,
		}, s.log.Named("iface")),
	}, s.log.Named("core")), nil
}

// adopt goes on where a killed helper stopped. A failure is not the end: the
// manager will ask for a state soon.
func (s serving) adopt(ctx context.Context, network *core.Core) {
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	if _, err := probe.Cleanup(); err != nil {
		s.log.Warn("route of a killed helper stays", zap.Error(err))
	}
	if err := network.Adopt(ctx); err != nil {
		s.log.Warn("state of the helper before is not taken over", zap.Error(err))
	}
}

// remove ends with the table that a helper before may have left, in case none
// was applied since.
func (s serving) remove(network *core.Core) error {
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	err := network.Remove(ctx)
	removed, cleanupErr := cleanUp(ctx, only(s.sensor.SensorID))
	s.log.Info("removed everything", zap.Strings("left_by_others", removed))
	return errors.Join(err, cleanupErr)
}

// notifyReady tells s6 that clients may come.
func notifyReady(fd int) error {
	if fd == 0 {
		return nil
	}
	if fd < 3 {
		return fmt.Errorf("notification-fd %d: want 3 or more", fd)
	}
	file := os.NewFile(uintptr(fd), "notification")
	if file == nil {
		return fmt.Errorf("notification-fd %d: not open", fd)
	}
	if _, err := file.WriteString("\n"); err != nil {
		return errors.Join(fmt.Errorf("notification-fd %d: %w", fd, err), file.Close())
	}
	return file.Close()
}

// sensorFlags are what the operator decides, for serve and rules.
func sensorFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "iface", EnvVars: []string{"IFACE"}, Value: "eth0", Usage: "`NAME` of the interface that attackers arrive at"},
		&cli.StringFlag{Name: "sensor-id", Usage: "container `ID` of the sensor (default: that of the container it runs in)"},
		&cli.StringFlag{Name: "host-ports", EnvVars: []string{"HOST_PORTS"}, Usage: "who wins a port that is assigned to a honeypot and used by the host: " +
			"protect (the host) or assigned (the honeypot, but for listeners on an address of the interface; this is the default)"},
		&cli.StringFlag{Name: "protected-ports", EnvVars: []string{"PROTECTED_PORTS"}, Usage: "`PORTS` that are never redirected, such as 22/tcp,161/udp; a bare number means both protocols"},
		&cli.StringFlag{Name: "egress", EnvVars: []string{"EGRESS"}, Usage: "what honeypots may reach by themselves, at most: deny (the default), internet or all"},
	}
}

func readSensor(c *cli.Context) (core.Config, error) {
	hostPorts, err := policy.ParseHostPorts(c.String("host-ports"))
	if err != nil {
		return core.Config{}, err
	}
	protected, err := policy.ParsePorts(c.String("protected-ports"))
	if err != nil {
		return core.Config{}, err
	}
	egress, err := policy.ParseEgress(c.String("egress"))
	if err != nil {
		return core.Config{}, err
	}
	if !helperapi.ValidInterfaceName(c.String("iface")) {
		return core.Config{}, fmt.Errorf("iface %q: no interface can have that name (IFACE)", c.String("iface"))
	}
	id, err := sensorID(c.String("sensor-id"))
	if err != nil {
		return core.Config{}, err
	}
	return core.Config{
		SensorID: id, HostPorts: hostPorts, Protected: protected,
		Rights: policy.Rights{Iface: c.String("iface"), Egress: egress},
	}, nil
}
