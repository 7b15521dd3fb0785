// Package app wires the manager together: it starts its parts in order, leads
// what the server wants to those whom it concerns, and stops everything again.
package app

import (
	"context"
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
	"honeysens.org/dockersensor/manager/internal/update"
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
	// HostDockerSocket is that of the host's engine, for updates.
	HostDockerSocket string
	// Previous is the compose project that this sensor replaces, or "".
	Previous string
	// UpdateRate limits the download of firmware, in bytes a second; 0 for none.
	UpdateRate int64
	// UpdateTime is how long a new revision has to get ready, and to prove itself.
	UpdateTime time.Duration
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
	// TrialTime is how long settings of the server have to prove themselves
	// before the last ones that worked return.
	TrialTime time.Duration
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
	agent     *update.Agent
	tests     *tests
	ground    ground
	// stop ends the manager, with the reason.
	stop context.CancelCauseFunc

	// poll and clock belong to the poller, which makes one poll at a time.
	poll  ticket
	clock clockWatch
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
	setup.within = cfg.TrialTime
	host, err := update.NewHost(cfg.HostDockerSocket)
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()
	t := &turns{cfg: cfg, level: level, log: log, host: host, setup: setup, journal: update.NewJournal(filepath.Join(cfg.StateDir, "update"))}
	mine, side, r := update.NewTurn(t.journal, host, cfg.Previous, log.Named("update")).Mine(ctx)
	if t.fresh = mine; mine {
		setup.resume(settingsJournal(cfg), time.Now())
	}
	if err := confine(cfg, setup, log); err != nil {
		return err
	}
	log.Info("manager starts", zap.String("version", version.Revision), zap.String("sensor", setup.settings().Sensor.Hostname),
		zap.String("interface", cfg.Interface))
	if err := t.run(ctx, mine, side, r); err != nil {
		return err
	}
	log.Info("manager ends")
	return nil
}

func newManager(cfg Config, setup *setup, log *zap.Logger) (*manager, error) {
	m := &manager{cfg: cfg, log: log, started: time.Now(), setup: setup, clock: clockWatch{log: log.Named("clock")}}
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
		Cache: filepath.Join(cfg.StateDir, "images"), Flush: update.Flush,
	}, engine, log.Named("images"))
	if err != nil {
		return nil, err
	}
	docker := services.NewDocker(engine, log.Named("engine"))
	m.services = services.New(services.Config{
		Store: filepath.Join(cfg.StateDir, "services.json"), Interface: cfg.Interface, CollectorPort: cfg.CollectorPort,
		Limits: cfg.Limits, DataDir: engineData, Held: func(id string) bool { return m.collector.Held(id) },
	}, docker, store, m.keeper, log.Named("services"))
	m.tests = &tests{visit: m.SelfTest, wake: make(chan struct{}, 1)}
	m.ground = ground{engine: docker, log: log.Named("update")}
	if cfg.Interface != "" {
		m.ground.helper = network.New(network.Config{Socket: cfg.HelperSocket}, log.Named("helper"))
	}
	m.collector = collector.New(collector.Config{AnyPeer: cfg.CollectorListen != "", Rate: eventRate(cfg)}, m.spool, m.services.Identify, log.Named("collector"))
	m.rememberTest()
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
	// What is in front of the collector can end before it.
	var front sync.WaitGroup
	inFront, stopFront := context.WithCancel(ctx)
	defer stopFront()
	front.Go(func() { m.keeper.run(inFront, m.services.Reconnect) })
	front.Go(func() { m.services.Run(inFront) })
	parts.Go(func() { m.intake.run(ctx, m.keeper) })
	parts.Go(func() { m.runAgent(ctx, &front, stopFront) })
	parts.Go(func() { m.uploader.Run(ctx) })
	parts.Go(func() { m.poller.Run(ctx) })
	parts.Go(func() { m.tellChanges(ctx) })
	parts.Go(func() { m.tellAttempts(ctx) })
	parts.Go(func() { m.watchTrials(ctx) })
	parts.Go(func() { m.tests.run(ctx) })
	parts.Wait()
	front.Wait()
}

// engineData is where the nested engine keeps its data, by the contract with the
// host; it is only looked at.
const engineData = "/var/lib/docker"

// eventRate is that of one honeypot. Peers that nobody knows have none: they are
// no honeypots of this sensor.
func eventRate(cfg Config) int {
	if cfg.CollectorListen != "" {
		return 0
	}
	return cfg.Limits.WithDefaults().EventRate
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
