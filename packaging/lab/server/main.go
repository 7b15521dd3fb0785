// Command server is a development HoneySens server: it treats sensors with all
// the strictness of a HoneySens server 2.9.0, offers them services and firmware,
// and shows what they report. It is made for the lab and for tests; it has no
// users, and its administration has no authentication.
//
//	go run ./packaging/lab/server --data out/lab/server --name hs.lab --listen 127.0.0.1:8443 \
//	    --endpoint 127.0.0.1:8443 --admin 127.0.0.1:8080 --registry http://127.0.0.1:5000
//
// The administration is described in packaging/lab/admin, where a client is,
// too. It can be a unix socket (--admin unix:PATH), which is reached from every
// network namespace.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/packaging/lab/server/internal/adminapi"
	"honeysens.org/dockersensor/packaging/lab/server/internal/pki"
	"honeysens.org/dockersensor/packaging/lab/server/internal/sensorapi"
	"honeysens.org/dockersensor/packaging/lab/server/internal/state"
	"honeysens.org/dockersensor/packaging/lab/server/internal/wanted"
	"honeysens.org/dockersensor/shared/logging"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := app().RunContext(ctx, os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "server: %v\n", err)
		os.Exit(1)
	}
}

func app() *cli.App {
	return &cli.App{
		Name:            "server",
		Usage:           "a development HoneySens server",
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "listen", Value: cli.NewStringSlice(":443"), Usage: "`ADDR:PORT` for sensors (TLS); may be repeated"},
			&cli.StringSliceFlag{Name: "admin", Value: cli.NewStringSlice("127.0.0.1:8080"), Usage: "`ADDR:PORT` or unix:PATH of the administration; may be repeated"},
			&cli.StringFlag{Name: "name", Value: "hs.lab", Usage: "`NAME` in the certificate"},
			&cli.StringFlag{Name: "endpoint", Usage: "`HOST:PORT` that sensors connect to (default: the name, and the port of the first --listen)"},
			&cli.StringFlag{Name: "data", Required: true, Usage: "`DIR` that keeps everything"},
			&cli.StringFlag{Name: "registry", Usage: "`URL` of the Docker registry behind /v2/"},
			&cli.IntFlag{Name: "interval", Value: 1, Usage: "`MINUTES` between two polls"},
			&cli.DurationFlag{Name: "clock-offset", Usage: "be `TIME` ahead of this machine's clock (-2h is behind it)"},
			&cli.StringFlag{Name: "log-level", EnvVars: []string{"LOG_LVL"}, Value: "info", Usage: "debug, info, warn or error"},
		},
		Action: run,
	}
}

func run(c *cli.Context) error {
	level, err := logging.ParseLevel(c.String("log-level"))
	if err != nil {
		return err
	}
	log, _, err := logging.New("server", level)
	if err != nil {
		return err
	}
	server, err := identity(c)
	if err != nil {
		return err
	}
	registry, err := parseRegistry(c.String("registry"))
	if err != nil {
		return err
	}
	store, err := state.Open(c.String("data"))
	if err != nil {
		return err
	}
	certs, err := pki.Open(c.String("data"), server.Name)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	now := func() time.Time { return time.Now().Add(c.Duration("clock-offset")) }
	sensors := sensorapi.New(sensorapi.Config{Server: server, Registry: registry, Now: now}, store, certs, log)
	host := ""
	if registry != nil {
		host = registry.Host
	}
	administration := adminapi.New(server, host, store, certs, sensors, log)
	err = serve(c, sensors, administration.Handler(), certs, log)
	return errors.Join(err, store.Close())
}

// identity is what the server says about itself.
func identity(c *cli.Context) (wanted.Server, error) {
	server := wanted.Server{Name: c.String("name"), Host: c.String("name"), Interval: c.Int("interval"), Division: 1}
	_, port, err := net.SplitHostPort(c.StringSlice("listen")[0])
	if err != nil {
		return server, fmt.Errorf("--listen: %w", err)
	}
	if endpoint := c.String("endpoint"); endpoint != "" {
		if server.Host, port, err = net.SplitHostPort(endpoint); err != nil {
			return server, fmt.Errorf("--endpoint: %w", err)
		}
	}
	if server.Port, err = strconv.Atoi(port); err != nil {
		return server, fmt.Errorf("port %q: %w", port, err)
	}
	return server, nil
}

func parseRegistry(text string) (*url.URL, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no registry is a choice
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("--registry is %q: want http://HOST:PORT", text)
	}
	return u, nil
}

// serve runs all listeners until the context ends or one of them breaks.
func serve(c *cli.Context, sensors, administration http.Handler, certs *pki.Store, log *zap.Logger) error {
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	sensorServer := newServer(sensors, log)
	sensorServer.TLSConfig = certs.TLS()
	adminServer := newServer(administration, log)
	var running []func() error
	for _, addr := range c.StringSlice("listen") {
		listener, err := listen(ctx, addr)
		if err != nil {
			return err
		}
		running = append(running, func() error { return sensorServer.ServeTLS(listener, "", "") })
	}
	for _, addr := range c.StringSlice("admin") {
		listener, err := listen(ctx, addr)
		if err != nil {
			return err
		}
		running = append(running, func() error { return adminServer.Serve(listener) })
	}
	log.Info("ready", zap.Strings("sensors", c.StringSlice("listen")), zap.Strings("administration", c.StringSlice("admin")))
	stop := context.AfterFunc(ctx, func() {
		_ = sensorServer.Close()
		_ = adminServer.Close()
	})
	defer stop()
	results := make(chan error, len(running))
	for _, f := range running {
		go func() { results <- f() }()
	}
	var all error
	for range running {
		if err := <-results; !errors.Is(err, http.ErrServerClosed) {
			all = errors.Join(all, err)
		}
		cancel()
	}
	return all
}

func newServer(h http.Handler, log *zap.Logger) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, ErrorLog: zap.NewStdLog(log)}
}

// listen opens a TCP address, or a unix socket whose left-over goes first.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return listener, nil
}
