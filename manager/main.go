// Command manager runs the sensor but for what needs privileges on the host's
// network: it talks to the HoneySens server, runs the honeypots and brings
// their events in. The same program is the command line of a running manager.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/shared/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := newCLI().RunContext(ctx, translate(os.Args))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "manager:", err)
		os.Exit(1)
	}
}

func newCLI() *cli.App {
	return &cli.App{
		Name:            "manager",
		Usage:           "runs a HoneySens sensor, and asks a running one",
		HideVersion:     true,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {},
		Commands: []*cli.Command{
			runCommand(),
			statusCommand(),
			servicesCommand(),
			eventsCommand(),
			metricsCommand(),
			pollCommand(),
			redirectCommand(),
			doctorCommand(),
			selfTestCommand(),
			updateCommand(),
			logLevelCommand(),
			configCommand(),
			{
				Name:  "version",
				Usage: "print the revision of this program",
				Action: func(c *cli.Context) error {
					fmt.Fprintln(c.App.Writer, version.Revision)
					return nil
				},
			},
		},
	}
}

// translate gives manager-cli the two flags that operators of earlier sensors
// know: -s for the status, -l LEVEL for the log level.
func translate(args []string) []string {
	if filepath.Base(args[0]) != "manager-cli" {
		return args
	}
	switch {
	case len(args) == 2 && args[1] == "-s":
		return []string{args[0], "status"}
	case len(args) == 3 && args[1] == "-l":
		return []string{args[0], "log-level", args[2]}
	}
	return args
}
