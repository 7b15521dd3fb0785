package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/packaging/lab/demo"
	"honeysens.org/dockersensor/packaging/lab/scenario"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name: "demo", Usage: "put up the lab with a server and a sensor, attack it, and show the events", ArgsUsage: "ARCHIVE RECON HONEYPOT",
		Flags: []cli.Flag{&cli.StringFlag{Name: "bin", Value: "out/bin", Usage: "programs are in `DIR`"}},
		Action: func(c *cli.Context) error {
			lab, err := labOf(c)
			if err != nil {
				return err
			}
			if c.NArg() != 3 {
				return errors.New("demo wants the sensor's archive and the service archives of recon and honeypot")
			}
			bin, err := filepath.Abs(c.String("bin"))
			if err != nil {
				return err
			}
			files := scenario.Files{Bin: bin, Archive: c.Args().Get(0), Recon: c.Args().Get(1), Honeypot: c.Args().Get(2)}
			say := func(text string) { fmt.Fprintln(c.App.Writer, text) }
			return demo.Run(c.Context, scenario.New(lab, files, say), c.App.Writer)
		},
	}
}
