package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/host"
)

// ServerName is the name in the certificate of the development server.
const ServerName = "hs.lab.test"

// PageAddress is where the page of the development server is on its machine.
const PageAddress = "127.0.0.1:8080"

// HoneypotPort is the port that attackers see of the assigned honeypot, unless
// a scenario has another, and honeypotListens the one that it listens on.
const (
	HoneypotPort    = 22
	honeypotListens = 2222
)

// Files are what was built beforehand.
type Files struct {
	// Bin is the directory of the programs.
	Bin string
	// Archive is the sensor's deployable archive.
	Archive string
	// Recon and Honeypot are service archives.
	Recon, Honeypot string
}

// Scenario is a lab with a server and, once deployed, a sensor.
type Scenario struct {
	Lab    *host.Lab
	Server *admin.Client
	// Sensor is the registered one, Dir its deployment directory on the host.
	Sensor admin.Sensor
	Dir    string
	// Recon and Honeypot are the services at the server.
	Recon, Honeypot admin.Service
	// Port is the one that the honeypot is assigned to.
	Port int
	// TargetV4 and TargetV6 are the addresses that are attacked.
	TargetV4, TargetV6 string

	files Files
	say   func(string)
}

// New returns a scenario in a lab that is not up. say hears of each step.
func New(lab *host.Lab, files Files, say func(string)) *Scenario {
	return &Scenario{Lab: lab, files: files, say: say, Port: HoneypotPort, TargetV4: host.SensorV4, TargetV6: host.SensorV6,
		Server: admin.New("unix:" + filepath.Join(lab.Dir(), "admin.sock"))}
}

// Up puts up the lab with a server that offers both services and has one
// sensor registered, which is not deployed yet.
func (s *Scenario) Up(ctx context.Context) error {
	s.say("putting up the lab: attacker, sensor host, server")
	if err := s.Lab.Up(ctx); err != nil {
		return err
	}
	if err := s.startServer(ctx); err != nil {
		return err
	}
	s.say("uploading the services recon and honeypot to the server")
	var err error
	if s.Recon, err = s.Server.UploadService(ctx, s.files.Recon); err != nil {
		return fmt.Errorf("upload recon: %w", err)
	}
	if s.Honeypot, err = s.Server.UploadService(ctx, s.files.Honeypot); err != nil {
		return fmt.Errorf("upload honeypot: %w", err)
	}
	s.Sensor, err = s.Server.Register(ctx, admin.NewSensor{Name: "lab", Location: "lab", Wanted: map[string]json.RawMessage{
		// The interface has its address from the host: the sensor leaves it alone.
		"network_ip_mode": json.RawMessage(`2`),
	}})
	if err != nil {
		return fmt.Errorf("register sensor: %w", err)
	}
	return nil
}

// Assign makes the sensor run recon for everything and the honeypot for its
// port.
func (s *Scenario) Assign(ctx context.Context) error {
	ports := fmt.Sprintf(`{"%d/tcp": %d}`, honeypotListens, s.Port)
	catchAll := true
	err := s.Server.Assign(ctx, s.Sensor.ID, admin.Assignment{Service: s.Recon.ID, CatchAll: &catchAll})
	if err == nil {
		err = s.Server.Assign(ctx, s.Sensor.ID, admin.Assignment{Service: s.Honeypot.ID, PortAssignment: &ports})
	}
	if err != nil {
		return fmt.Errorf("assign services: %w", err)
	}
	return nil
}

// Deploy deploys the sensor on its host, by the guide, with these changes of
// the compose file.
func (s *Scenario) Deploy(ctx context.Context, edit map[string]string) error {
	return s.deploy(ctx, host.Deployment{Edit: edit})
}

// DeployWith deploys with another compose file, such as an older one.
func (s *Scenario) DeployWith(ctx context.Context, compose string, edit map[string]string) error {
	return s.deploy(ctx, host.Deployment{Compose: compose, Edit: edit})
}

// DeployProfile deploys with the compose files of a profile.
func (s *Scenario) DeployProfile(ctx context.Context, files string) error {
	return s.deploy(ctx, host.Deployment{Profile: files})
}

// DeployAs deploys with all that an operator may choose.
func (s *Scenario) DeployAs(ctx context.Context, d host.Deployment) error {
	return s.deploy(ctx, d)
}

func (s *Scenario) deploy(ctx context.Context, d host.Deployment) error {
	s.say("deploying the sensor by its guide: unpack, load, configure, compose up")
	var err error
	if d.Config, err = s.Configuration(ctx); err != nil {
		return err
	}
	d.Archive = s.files.Archive
	s.Dir, err = s.Lab.Deploy(ctx, d)
	return err
}

// Prepare deploys the sensor up to its start.
func (s *Scenario) Prepare(ctx context.Context, edit map[string]string) error {
	s.say("preparing the sensor by its guide: unpack, load, configure")
	config, err := s.Configuration(ctx)
	if err != nil {
		return err
	}
	s.Dir, err = s.Lab.Prepare(ctx, host.Deployment{Archive: s.files.Archive, Config: config, Edit: edit})
	return err
}

// Start starts the sensor that was prepared, with its newest configuration.
func (s *Scenario) Start(ctx context.Context) error {
	s.say("starting the sensor")
	config, err := s.Configuration(ctx)
	if err != nil {
		return err
	}
	return s.Lab.StartSensor(ctx, s.Dir, config)
}

// Configuration writes the sensor's configuration archive into the lab's
// directory and returns its path.
func (s *Scenario) Configuration(ctx context.Context) (string, error) {
	archive, err := s.Server.Archive(ctx, s.Sensor.ID)
	if err != nil {
		return "", fmt.Errorf("get configuration archive: %w", err)
	}
	path := filepath.Join(s.Lab.Dir(), fmt.Sprintf("s%d.tar.gz", s.Sensor.ID))
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		return "", fmt.Errorf("write configuration archive: %w", err)
	}
	return path, nil
}

// Revision returns that of the sensor's archive, by its name.
func (s *Scenario) Revision() string {
	_, revision, _ := strings.Cut(filepath.Base(s.files.Archive), "dockerx86-")
	return strings.TrimSuffix(revision, ".tar.gz")
}

// Ready waits until the sensor has told the server, after a time, that these
// services run, and the honeypot among them greets: its program may take longer
// to start than its container.
func (s *Scenario) Ready(ctx context.Context, after time.Time, services ...int) error {
	s.say("waiting for the sensor to report its services as running")
	_, err := s.Server.WaitSensor(ctx, s.Sensor.ID, func(sensor admin.Sensor) bool {
		return running(sensor, services) && sensor.Status.Received.After(after)
	})
	if err != nil {
		return fmt.Errorf("sensor does not report its services as running: %w", err)
	}
	if slices.Contains(services, s.Honeypot.ID) {
		return s.greeted(ctx)
	}
	return nil
}

func (s *Scenario) greeted(ctx context.Context) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.Dial(ctx, "tcp", host.AttackerV4, s.TargetV4, s.Port, greeting)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("honeypot does not greet: %w", err)
		}
	}
}

// greeting reads the first byte of the honeypot's banner.
func greeting(conn net.Conn) error {
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return fmt.Errorf("no greeting: %w", err)
	}
	return nil
}

func running(sensor admin.Sensor, services []int) bool {
	if sensor.Status == nil {
		return false
	}
	var states map[string]int
	if json.Unmarshal(sensor.Status.Told, &states) != nil {
		return false
	}
	for _, id := range services {
		if state, ok := states[fmt.Sprint(id)]; !ok || state != 0 {
			return false
		}
	}
	return true
}

// Compose runs a compose command for the deployed sensor and returns what it
// printed.
func (s *Scenario) Compose(ctx context.Context, args ...string) (string, error) {
	cmd := s.Lab.ComposeCommand(ctx, s.Dir, args...)
	// Warnings are no part of what a command prints.
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("compose %s: %w: %s", strings.Join(args, " "), err, complaints.String())
	}
	return string(out), nil
}

// Exec runs a command in the sensor's container.
func (s *Scenario) Exec(ctx context.Context, args ...string) (string, error) {
	return s.Compose(ctx, append([]string{"exec", "-T", "sensor"}, args...)...)
}

// startServer starts the registry and the development server in front of it.
func (s *Scenario) startServer(ctx context.Context) error {
	s.say("starting the development server and its registry")
	config := filepath.Join(s.Lab.Dir(), "registry.yml")
	text := fmt.Sprintf(registryConfig, filepath.Join(s.Lab.Dir(), "registry"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write registry configuration: %w", err)
	}
	if _, err := s.Lab.Start(host.Server, "registry", "docker-registry", "serve", config); err != nil {
		return err
	}
	_, err := s.Lab.Start(host.Server, "server", filepath.Join(s.files.Bin, "server"),
		"--listen", ":443", "--admin", "unix:"+filepath.Join(s.Lab.Dir(), "admin.sock"), "--admin", PageAddress,
		"--name", ServerName, "--endpoint", host.ServerV4+":443", "--data", filepath.Join(s.Lab.Dir(), "server"), "--registry", "http://"+registryAddress)
	if err != nil {
		return err
	}
	if err := s.Server.Wait(ctx); err != nil {
		return err
	}
	return s.registryAnswers(ctx)
}

// registryAnswers waits until somebody listens where the registry is to be.
func (s *Scenario) registryAnswers(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.On(host.Server, func() error {
			conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp4", registryAddress)
			if err != nil {
				return err
			}
			return conn.Close()
		})
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("registry does not answer: %w", err)
		}
	}
}

// registryAddress is where the registry is, on the server's machine.
const registryAddress = "127.0.0.1:5000"

const registryConfig = `version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: %s}
http:
  addr: 127.0.0.1:5000
`
