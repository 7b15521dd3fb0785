// Command nethelper is the privileged half of the sensor. It owns every change
// to the host's network: the redirect of attackers to honeypots, the bridge of
// the honeypots, their addresses, and the way through firewalls. It does what
// its policy allows to the one user that it is told to serve.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/shared/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := newCLI().RunContext(ctx, os.Args)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "nethelper:", err)
		os.Exit(1)
	}
}

func newCLI() *cli.App {
	return &cli.App{
		Name:  "nethelper",
		Usage: "changes the host's network for a HoneySens sensor",
		Description: "serve   runs until SIGTERM, then brings the host back to what it was before.\n" +
			"        When it is killed instead, everything stays, and the next one goes on from there;\n" +
			"        without a next one the redirects end after a minute.\n" +
			"rules   shows the rules that serve would write.\n" +
			"cleanup removes what sensors that no longer run have left.",
		HideVersion:     true,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {},
		Commands: []*cli.Command{
			serveCommand(),
			rulesCommand(),
			cleanupCommand(),
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
