package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/nethelper/internal/attach"
	"honeysens.org/dockersensor/nethelper/internal/core"
	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
)

func rulesCommand() *cli.Command {
	return &cli.Command{
		Name:  "rules",
		Usage: "show the rules that serve would write, in the syntax of nft, without writing any",
		Description: "Needs no privileges. FILE holds a network as PUT " + helperapi.PathNetwork + " takes it, in JSON.\n" +
			"Services get the first addresses of the service network here, and names and addresses of ports that stand\n" +
			"for those that a container gets when it is attached.",
		Flags: append(sensorFlags(), &cli.PathFlag{Name: "spec", Usage: "take the wanted network from `FILE` (- for standard input) rather than an example"}),
		Action: func(c *cli.Context) error {
			if c.String("sensor-id") == "" {
				if err := c.Set("sensor-id", ownOrExampleID()); err != nil {
					return err
				}
			}
			sensor, err := readSensor(c)
			if err != nil {
				return err
			}
			want := exampleNetwork(sensor.Rights.Iface)
			if path := c.Path("spec"); path != "" {
				if want, err = readNetwork(path); err != nil {
					return err
				}
			}
			text, err := rulesText(sensor, want)
			if err != nil {
				return err
			}
			fmt.Fprint(c.App.Writer, text)
			return nil
		},
	}
}

func ownOrExampleID() string {
	id, err := sensorID("")
	if err != nil {
		return strings.Repeat("0", 64)
	}
	return id
}

func rulesText(sensor core.Config, want helperapi.Network) (string, error) {
	layout := link.NewLayout(sensor.SensorID, want.Bridge)
	var attached []attach.Attachment
	v4, v6 := layout.GatewayV4, layout.GatewayV6
	for i, service := range want.Services {
		v4, v6 = v4.Next(), v6.Next()
		attached = append(attached, attach.Attachment{
			ContainerID: service.Sandbox.ContainerID, V4: v4, V6: v6, Port: fmt.Sprintf("veth%d", i+1), MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i + 1)},
		})
	}
	standing := link.Forwarding{WasOffV4: true, WasOffV6: true}
	table, err := ruleset.New(core.Rules(sensor, want, layout, standing, attached))
	if err != nil {
		return "", fmt.Errorf("translate into rules: %w", err)
	}
	return table.Text(), nil
}

func readNetwork(path string) (helperapi.Network, error) {
	var in io.Reader = os.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return helperapi.Network{}, fmt.Errorf("read network: %w", err)
		}
		defer file.Close()
		in = file
	}
	raw, err := io.ReadAll(io.LimitReader(in, helperapi.MaxBody+1))
	if err != nil {
		return helperapi.Network{}, fmt.Errorf("read network: %w", err)
	}
	want, err := helperapi.DecodeNetwork(raw)
	if err != nil {
		return helperapi.Network{}, fmt.Errorf("read network %s: %w", path, err)
	}
	return want, nil
}

// exampleNetwork has one of everything: a service with ports of both protocols
// and the catch-all.
func exampleNetwork(iface string) helperapi.Network {
	port := func(p helperapi.Protocol, number, to uint16) helperapi.Assignment {
		return helperapi.Assignment{Port: helperapi.Port{Protocol: p, Number: number}, To: to}
	}
	sandbox := func(digit string, pid int) helperapi.Sandbox {
		return helperapi.Sandbox{ContainerID: strings.Repeat(digit, 64), PID: pid}
	}
	return helperapi.Network{
		Interface: helperapi.Interface{Name: iface, Mode: helperapi.ModeNone},
		Bridge:    helperapi.Bridge{V4: netip.MustParsePrefix("10.10.10.0/24"), CollectorPort: 5556},
		Services: []helperapi.Service{
			{ID: "1", Sandbox: sandbox("1", 101), Ports: []helperapi.Assignment{
				port(helperapi.TCP, 22, 2222), port(helperapi.TCP, 23, 2223), port(helperapi.UDP, 161, 161),
			}},
			{ID: "2", Sandbox: sandbox("2", 102), CatchAll: true},
		},
		Egress: helperapi.EgressDeny,
	}
}
