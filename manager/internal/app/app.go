// Package app wires the manager together: it starts its parts in order, leads
// what the server wants to those whom it concerns, and stops everything again.
package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/docker/docker/client"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/collector"
	"honeysens.org/dockersensor/manager/internal/config"
	"honeysens.org/dockersensor/manager/internal/control"
	"honeysens.org/dockersensor/manager/internal/hsapi"
	"honeysens.org/dockersensor/manager/internal/images"
	"honeysens.org/dockersensor/manager/internal/network"
	"honeysens.org/dockersensor/manager/internal/poller"
	"honeysens.org/dockersensor/manager/internal/services"
	"honeysens.org/dockersensor/manager/internal/spool"
	"honeysens.org/dockersensor/manager/internal/uploader"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/version"
)

// Config is what the operator says, by flags and environment.
type Config struct {
	// Archive is the configuration archive, or a directory that holds it.
	Archive string
	// Interface receives the attackers.
	Interface string
	// StateDir keeps what must outlive the container.
	StateDir string
	// DeployDir holds the compose file and .env.
	DeployDir string
	// The sockets of helper and nested engine, and the one of this manager.
	HelperSocket, DockerSocket, ControlSocket string
	// PauseProgram is the file of the program that sandboxes run.
	PauseProgram string
	// CollectorPort is where honeypots report, at the services' gateway.
	CollectorPort uint16
	// CollectorListen is an address with a port at which the collector listens
	// at once and takes any peer, or "".
	CollectorListen string
	// MetricsListen is an address with a port that shows metrics, or "".
	MetricsListen string
	Egress        helperapi.Egress
	// ExternalIP is the address to report to the server, or "" for that of the
	// interface.
	ExternalIP string
	// Limits bound each honeypot.
	Limits services.Limits
}

// manager holds the parts of a running manager.
type manager struct {
	cfg     Config
	log     *zap.Logger
	started time.Time

	setup     *setup
	spool     *spool.Spool
	server    *hsapi.Client
	keeper    *keeper
	services  *services.Services
	collector *collector.Collector
	intake    *intake
	uploader  *uploader.Uploader
	poller    *poller.Poller
	// stop ends the manager, with the reason.
	stop context.CancelCauseFunc

	// poll belongs to the poller, which makes one poll at a time.
	poll ticket
	// adopting makes sure that the newest settings are adopted last.
	adopting sync.Mutex
}

// Run runs the manager until ctx ends. It returns an error when it cannot start;
// whatever is missing later is shown in the status, and tried again.
func Run(ctx context.Context, cfg Config, level zap.AtomicLevel, log *zap.Logger) error {
	setup, err := openSetup(cfg.Archive, log)
	if err != nil {
		return err
	}
	if err := confine(cfg, setup, log); err != nil {
		return err
	}
	m, err := newManager(cfg, setup, log)
	if err != nil {
		return err
	}
	ctx, m.stop = context.WithCancelCause(ctx)
	defer m.stop(nil)
	log.Info("manager starts", zap.String("version", version.Revision), zap.String("sensor", setup.settings().Sensor.Hostname),
		zap.String("server", m.server.Address()), zap.String("interface", cfg.Interface))
	m.run(ctx, control.NewServer(m, level, log.Named("control")))
	m.server.Close()
	if err := m.spool.Close(); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	log.Info("manager ends")
	if err := context.Cause(ctx); errors.Is(err, errNewPorts) {
		return err
	}
	return nil
}

func newManager(cfg Config, setup *setup, log *zap.Logger) (*manager, error) {
	m := &manager{cfg: cfg, log: log, started: time.Now(), setup: setup}
	engine, err := client.NewClientWithOpts(client.WithHost("unix://"+cfg.DockerSocket), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("client of the nested engine: %w", err)
	}
	m.spool, err = spool.Open(spool.Config{Path: filepath.Join(cfg.StateDir, "events.db")}, log.Named("spool"))
	if err != nil {
		return nil, err
	}
	settings := setup.settings()
	m.server = hsapi.New(hsapi.Config{}, settings)
	m.keeper = newKeeper(m.helper(), wantedNetwork(cfg, settings), log.Named("network"))
	store, err := images.New(images.Config{
		Transport: m.server.RegistryTransport(), Registry: m.server.Registry, Pause: cfg.PauseProgram,
		Cache: filepath.Join(cfg.StateDir, "images"),
	}, engine, log.Named("images"))
	if err != nil {
		return nil, err
	}
	m.services = services.New(services.Config{
		Store: filepath.Join(cfg.StateDir, "services.json"), Interface: cfg.Interface, CollectorPort: cfg.CollectorPort,
		Limits: cfg.Limits,
	}, services.NewDocker(engine, log.Named("engine")), store, m.keeper, log.Named("services"))
	m.collector = collector.New(collector.Config{AnyPeer: cfg.CollectorListen != ""}, m.spool, m.services.Identify, log.Named("collector"))
	m.intake = &intake{server: m.collector, port: cfg.CollectorPort, fixed: cfg.CollectorListen, log: log.Named("collector")}
	m.poller = poller.New(poller.Config{Interval: settings.Server.Interval}, m.server, m, m, log.Named("poller"))
	m.uploader = uploader.New(uploader.Config{Source: m.sourceText, Known: m.lastPoll}, m.spool, m.server, log.Named("uploader"))
	return m, nil
}

func (m *manager) helper() helper {
	if m.cfg.Interface == "" {
		return noInterface{}
	}
	return network.New(network.Config{Socket: m.cfg.HelperSocket}, m.log.Named("helper"))
}

// run returns when ctx has ended and all parts have.
func (m *manager) run(ctx context.Context, control *control.Server) {
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := control.Serve(ctx, m.cfg.ControlSocket); err != nil {
			m.log.Error("the command line cannot reach this manager", zap.Error(err))
		}
	})
	if m.cfg.MetricsListen != "" {
		parts.Go(func() {
			if err := control.ServeMetrics(ctx, m.cfg.MetricsListen); err != nil {
				m.log.Error("nobody can ask for metrics by TCP", zap.Error(err))
			}
		})
	}
	parts.Go(func() { m.keeper.run(ctx, m.services.Reconnect) })
	parts.Go(func() { m.intake.run(ctx, m.keeper) })
	parts.Go(func() { m.services.Run(ctx) })
	parts.Go(func() { m.uploader.Run(ctx) })
	parts.Go(func() { m.poller.Run(ctx) })
	parts.Go(func() { m.tellChanges(ctx) })
	parts.Go(func() { m.watchTrials(ctx) })
	parts.Wait()
}

// wantedNetwork is the network without its services.
func wantedNetwork(cfg Config, settings config.Settings) helperapi.Network {
	link := settings.Interface
	link.Name, link.EAPOL = cfg.Interface, settings.EAPOL.Wanted()
	return helperapi.Network{
		Interface: link,
		Bridge:    helperapi.Bridge{V4: settings.Sensor.ServiceNetwork, CollectorPort: cfg.CollectorPort},
		Services:  []helperapi.Service{},
		Egress:    cfg.Egress,
	}
}

// platform is what the sensor runs on, as people say it.
func platform() string { return "docker_x86/" + runtime.GOARCH }
