package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/app"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/logging"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "run the sensor until SIGTERM",
		Description: "The configuration archive has to be there and valid. Whatever else is missing (server, helper,\n" +
			"nested engine) is told in log and status, and tried again; events are kept meanwhile.",
		Flags: slices.Concat(pathFlags(), behaviourFlags(), limitFlags()),
		Action: func(c *cli.Context) error {
			cfg, err := runConfig(c)
			if err != nil {
				return err
			}
			level, err := logging.ParseLevel(c.String("log-level"))
			if err != nil {
				return err
			}
			if c.Bool("dev") && !c.IsSet("log-level") {
				level = zap.DebugLevel
			}
			log, steer, err := logging.New("manager", level)
			if err != nil {
				return err
			}
			return app.Run(c.Context, cfg, steer, log)
		},
	}
}

func pathFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", EnvVars: []string{"SENSOR_CONFIG"}, Value: "/etc/manager",
			Usage: "configuration archive s<id>.tar.gz: a `FILE`, or a directory that holds exactly one"},
		&cli.StringFlag{Name: "state-dir", EnvVars: []string{"SENSOR_STATE_DIR"}, Value: "/mnt/state",
			Usage: "keep events and what must outlive the container in `DIR`"},
		&cli.StringFlag{Name: "deploy-dir", EnvVars: []string{"SENSOR_DEPLOY_DIR"}, Value: "/mnt",
			Usage: "`DIR` that holds docker-compose.yml and .env of the deployment"},
		&cli.StringFlag{Name: "helper-socket", EnvVars: []string{"SENSOR_HELPER_SOCKET"}, Value: "/run/sensor/nethelper.sock",
			Usage: "socket `FILE` of the nethelper"},
		&cli.StringFlag{Name: "docker-socket", EnvVars: []string{"SENSOR_DOCKER_SOCKET"}, Value: "/run/docker.sock",
			Usage: "socket `FILE` of the Docker engine that runs the honeypots"},
		&cli.StringFlag{Name: "host-docker-socket", EnvVars: []string{"SENSOR_HOST_DOCKER_SOCKET"}, Value: "/var/run/docker.host.sock",
			Usage: "socket `FILE` of the host's Docker engine, which runs this sensor"},
		&cli.StringFlag{Name: "pause-program", EnvVars: []string{"SENSOR_PAUSE_PROGRAM"}, Value: "/usr/lib/honeysens/pause",
			Usage: "static `FILE` that holds a honeypot's network namespace"},
		controlSocketFlag(),
	}
}

func behaviourFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "iface", EnvVars: []string{"IFACE"},
			Usage: "interface `NAME` that attackers reach"},
		&cli.StringFlag{Name: "log-level", EnvVars: []string{"LOG_LVL"}, Value: "info",
			Usage: "log at `LEVEL` debug, info, warn or error, and above"},
		&cli.IntFlag{Name: "collector-port", EnvVars: []string{"SENSOR_COLLECTOR_PORT"}, Value: 5556,
			Usage: "take events of honeypots at this `PORT` of the services bridge"},
		&cli.StringFlag{Name: "collector-listen", EnvVars: []string{"SENSOR_COLLECTOR_LISTEN"},
			Usage: "take events at `ADDR:PORT` instead, at once and from any peer"},
		&cli.StringFlag{Name: "metrics-listen", EnvVars: []string{"SENSOR_METRICS_LISTEN"},
			Usage: "show metrics at `ADDR:PORT`/metrics to everybody who reaches it, besides the control socket"},
		&cli.StringFlag{Name: "egress", EnvVars: []string{"EGRESS"}, Value: string(helperapi.EgressDeny),
			Usage: "what honeypots reach by themselves: `POLICY` deny, internet or all"},
		&cli.StringFlag{Name: "external-ip", EnvVars: []string{"EXTERNAL_IP"},
			Usage: "report this `ADDRESS` to the server instead of the interface's"},
		&cli.DurationFlag{Name: "trial-time", EnvVars: []string{"SENSOR_TRIAL_TIME"}, Value: longestTrial,
			Usage: "`TIME`, 20s to 3m, that network settings of the server have to prove themselves by a poll"},
		&cli.StringFlag{Name: "prev-prefix", EnvVars: []string{"PREV_PREFIX"},
			Usage: "compose `PROJECT` that this sensor replaces; set by updates"},
		&cli.Int64Flag{Name: "update-rate", EnvVars: []string{"UPDATE_RATE"},
			Usage: "fetch firmware with at most `N` KiB a second; 0 for as fast as it comes"},
		&cli.DurationFlag{Name: "update-time", EnvVars: []string{"UPDATE_TIME"}, Value: 10 * time.Minute,
			Usage: "`TIME` that a new revision has to get ready, and again to prove itself"},
		&cli.BoolFlag{Name: "dev", EnvVars: []string{"DEV_MODE"},
			Usage: "development sensor: log at debug"},
	}
}

// Times that settings of the server may have to prove themselves: less than the
// shortest is over before an interface has settled.
const (
	shortestTrial = 20 * time.Second
	longestTrial  = 3 * time.Minute
)

// maxRate is the fastest line that a limit makes sense for, in KiB a second.
const maxRate = 10 << 20

func runConfig(c *cli.Context) (app.Config, error) {
	port := c.Int("collector-port")
	if port < 1 || port > 65535 {
		return app.Config{}, fmt.Errorf("collector port %d: want 1 to 65535", port)
	}
	egress := helperapi.Egress(c.String("egress"))
	switch egress {
	case helperapi.EgressDeny, helperapi.EgressInternet, helperapi.EgressAll:
	case "":
		egress = helperapi.EgressDeny
	default:
		return app.Config{}, fmt.Errorf("EGRESS is %.40q: want deny, internet or all", egress)
	}
	limits, err := serviceLimits(c)
	if err != nil {
		return app.Config{}, err
	}
	rate := c.Int64("update-rate")
	if rate < 0 || rate > maxRate || c.Duration("update-time") < time.Minute/2 {
		return app.Config{}, fmt.Errorf("UPDATE_RATE is %d and UPDATE_TIME %s: want KiB a second up to %d, and half a minute at least", rate, c.Duration("update-time"), maxRate)
	}
	trial := c.Duration("trial-time")
	if trial < shortestTrial || trial > longestTrial {
		return app.Config{}, fmt.Errorf("SENSOR_TRIAL_TIME is %s: want %s to %s", trial, shortestTrial, longestTrial)
	}
	return app.Config{
		Archive: c.String("config"), Interface: c.String("iface"),
		StateDir: c.String("state-dir"), DeployDir: c.String("deploy-dir"),
		HelperSocket: c.String("helper-socket"), DockerSocket: c.String("docker-socket"), ControlSocket: c.String("control-socket"),
		HostDockerSocket: c.String("host-docker-socket"), Previous: c.String("prev-prefix"),
		UpdateRate: rate << 10, UpdateTime: c.Duration("update-time"),
		PauseProgram:    c.String("pause-program"),
		CollectorPort:   uint16(port), // #nosec G115 -- checked above
		CollectorListen: c.String("collector-listen"), MetricsListen: c.String("metrics-listen"),
		Egress: egress, ExternalIP: c.String("external-ip"),
		Limits: limits, TrialTime: trial,
	}, nil
}
