package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/manager/internal/app"
	"honeysens.org/dockersensor/manager/internal/redirect"
)

func redirectCommand() *cli.Command {
	return &cli.Command{
		Name:  "redirect-rules",
		Usage: "bridge networking: print the rules that lead the host's traffic to this sensor, to be entered on the host",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "iface", EnvVars: []string{"IFACE"}, Usage: "this sensor's own interface `NAME`"},
			&cli.StringFlag{Name: "host-iface", Value: "eth0", Usage: "interface `NAME` of the host that attackers reach"},
			&cli.IntSliceFlag{Name: "keep", Value: cli.NewIntSlice(22), Usage: "`PORT` that stays with the host; may be repeated"},
		},
		Action: printRedirect,
	}
}

// redirectText is what printRedirect prints around the rules.
const redirectText = `# With iptables:
%s
# Or with nft, as input of "nft -f -", and for Docker either the last one of the
# commands above, or where Docker uses nftables itself, in its daemon.json:
#   "bridge-accept-fwmark": "%s"
%s`

func printRedirect(c *cli.Context) error {
	address, err := app.AddressOf(c.String("iface"))
	if err != nil {
		return err
	}
	if !address.Is4() {
		return fmt.Errorf("the sensor has no IPv4 address at %s, only %s", c.String("iface"), address)
	}
	cfg, err := redirectConfig(c, address)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, redirectText, redirect.IPTables(cfg), redirect.AcceptMark, redirect.NFTables(cfg))
	return err
}

func redirectConfig(c *cli.Context, address netip.Addr) (redirect.Config, error) {
	cfg := redirect.Config{Sensor: address, Interface: c.String("host-iface")}
	for _, port := range c.IntSlice("keep") {
		if port < 1 || port > 65535 {
			return cfg, fmt.Errorf("port %d to keep: want 1 to 65535", port)
		}
		cfg.Keep = append(cfg.Keep, uint16(port))
	}
	if len(cfg.Keep) > 14 {
		return cfg, errors.New("iptables takes at most 14 ports to keep in one rule")
	}
	return cfg, nil
}
