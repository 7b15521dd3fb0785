// Command recon is the catch-all honeypot: it answers on every port, says
// nothing, and reports who knocked where and with what first words.
//
// It is told by its environment, as every service of a sensor: COLLECTOR_HOST
// and COLLECTOR_PORT name the collector. With INTERFACE (raw network access)
// it shares the sensor's namespace, only captures on that interface, and writes
// no rule. Without, it is alone in a namespace and owns the ports of eth0.
//
// LOG_LVL is debug, info, warn or error.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"honeysens.org/dockersensor/packaging/services/recon/internal/tracker"
	"honeysens.org/dockersensor/shared/logging"
)

// Go is to give memory back early: all that is kept is bounded, and below this
// (in bytes) even when everything is full.
const (
	memoryLimit = 24 << 20
	gcPercent   = 50
)

func main() {
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := start(ctx, tracker.Config{}); err != nil {
		fmt.Fprintf(os.Stderr, "recon: %v\n", err)
		os.Exit(1)
	}
}

// start reads the environment and runs the honeypot.
func start(ctx context.Context, limits tracker.Config) error {
	level, err := logging.ParseLevel(os.Getenv("LOG_LVL"))
	if err != nil {
		return fmt.Errorf("LOG_LVL: %w", err)
	}
	log, _, err := logging.New("recon", level)
	if err != nil {
		return err
	}
	cfg, err := readConfig(os.Getenv)
	if err != nil {
		return err
	}
	return run(ctx, cfg, limits, log)
}
