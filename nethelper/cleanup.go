package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/nethelper/internal/iface"
	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/nethelper/internal/passage"
	"honeysens.org/dockersensor/nethelper/internal/probe"
	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
)

// resolvConf is looked at by cleanup: within the sensor's container it may have
// name servers of the sensor, with a mark.
const resolvConf = "/etc/resolv.conf"

func cleanupCommand() *cli.Command {
	return &cli.Command{
		Name:  "cleanup",
		Usage: "remove what a sensor that no longer runs has left in the kernel",
		Description: "Goes by what is found in the kernel. Without flags it is about the sensor of the container\n" +
			"that it runs in; on the host give --sensor-id or --all.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "sensor-id", Usage: "container `ID` of the sensor; the first 12 digits are enough"},
			&cli.BoolFlag{Name: "all", Usage: "of every sensor"},
		},
		Action: func(c *cli.Context) error {
			match, err := whose(c.String("sensor-id"), c.Bool("all"))
			if err != nil {
				return err
			}
			removed, err := cleanUp(c.Context, match)
			for _, what := range removed {
				fmt.Fprintln(c.App.Writer, "removed", what)
			}
			if err == nil && len(removed) == 0 {
				fmt.Fprintln(c.App.Writer, "nothing to remove")
			}
			return err
		},
	}
}

// shortID is how many digits of its container id a sensor is known by in the
// kernel.
const shortID = 12

// whose decides by the first digits of a sensor's container id.
func whose(given string, all bool) (func(id string) bool, error) {
	if all {
		return func(string) bool { return true }, nil
	}
	if given != "" {
		padded := given + strings.Repeat("0", max(0, 64-len(given)))
		if len(given) < shortID || !helperapi.ValidContainerID(padded) {
			return nil, fmt.Errorf("sensor-id %.80q: want at least %d digits of a container id", given, shortID)
		}
		return only(given), nil
	}
	id, err := sensorID("")
	if err != nil {
		return nil, err
	}
	return only(id), nil
}

func only(id string) func(string) bool {
	return func(other string) bool { return other == id[:shortID] }
}

// cleanUp removes everything of the sensors that match accepts, and returns
// what it was. It goes on after errors. Passages and tables go before the links
// that they are about.
func cleanUp(ctx context.Context, match func(id string) bool) ([]string, error) {
	byTable := func(table string) bool {
		id := strings.TrimPrefix(table, "honeysens-")
		return ruleset.IsTableName(table) && match(id)
	}
	removed, passageErr := passage.Cleanup(ctx, nft.Config{}, byTable)
	tables, tableErr := nft.Cleanup(ctx, nft.Config{}, byTable)
	for _, table := range tables {
		removed = append(removed, "table "+table)
	}
	bridges, linkErr := cleanUpLinks(match)
	interfaces, ifaceErr := iface.Cleanup(match, resolvConf)
	probes, probeErr := probe.Cleanup()
	removed = append(append(append(removed, bridges...), interfaces...), probes...)
	return removed, errors.Join(passageErr, tableErr, linkErr, ifaceErr, probeErr)
}

func cleanUpLinks(match func(id string) bool) ([]string, error) {
	found, err := link.Find()
	if err != nil {
		return nil, err
	}
	var removed []string
	var errs []error
	for _, bridge := range found {
		if !match(bridge.Sensor) {
			continue
		}
		if err := bridge.Remove(); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, "bridge "+bridge.Name)
	}
	return removed, errors.Join(errs...)
}
