package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/manager/internal/control"
)

// errSelfTest ends the command with status 1; the findings say why.
var errSelfTest = errors.New("the self-test found something broken, or nothing that works")

func selfTestCommand() *cli.Command {
	return &cli.Command{
		Name:  "selftest",
		Usage: "visit each honeypot as an attacker would, and say where the way breaks; exit status 1 when it does",
		Description: "A connection with a mark arrives at the interface, is redirected, answered by the honeypot and reported to\n" +
			"the collector, which knows the mark: nothing of it becomes an event at the server. It takes some seconds for\n" +
			"each honeypot. A way is unproved when the honeypot answers but reports nothing: some report only who logs in.",
		Flags: []cli.Flag{
			controlSocketFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print JSON: good, findings"},
		},
		Action: selfTest,
	}
}

func selfTest(c *cli.Context) error {
	findings := []control.TestFinding{}
	good, err := control.NewClient(c.String("control-socket")).SelfTest(c.Context, func(f control.TestFinding) error {
		findings = append(findings, f)
		if c.Bool("json") {
			return nil
		}
		return f.WriteText(c.App.Writer)
	})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err := printJSON(c.App.Writer, struct {
			Good     bool                  `json:"good"`
			Findings []control.TestFinding `json:"findings"`
		}{good, findings})
		if err != nil {
			return err
		}
	}
	if !good {
		return errSelfTest
	}
	return nil
}
