package main

import (
	"testing"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/manager/internal/services"
)

func TestServiceLimits(t *testing.T) {
	cases := map[string]struct {
		args []string
		want services.Limits
		ok   bool
	}{
		"none":       {nil, services.Limits{}, true},
		"empty":      {[]string{"--service-memory", ""}, services.Limits{}, true},
		"some":       {[]string{"--service-memory", "64", "--service-pids", "50", "--service-disk", "10"}, services.Limits{Memory: 64 << 20, PIDs: 50, Disk: 10 << 20}, true},
		"others":     {[]string{"--service-cpu-weight", "100", "--service-log-rate", "7", "--service-write-rate", "2", "--service-event-rate", "8"}, services.Limits{CPUWeight: 100, WriteRate: 2 << 20, LogRate: 7, EventRate: 8}, true},
		"no number":  {[]string{"--service-memory", "64m"}, services.Limits{}, false},
		"too little": {[]string{"--service-memory", "1"}, services.Limits{}, false},
		"negative":   {[]string{"--service-pids", "-1"}, services.Limits{}, false},
		"too much":   {[]string{"--service-disk", "9999999999999"}, services.Limits{}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got services.Limits
			var err error
			cmd := &cli.App{Flags: limitFlags(), Action: func(c *cli.Context) error {
				got, err = serviceLimits(c)
				return nil
			}}
			if err := cmd.Run(append([]string{"manager"}, c.args...)); err != nil {
				t.Fatal(err)
			}
			if (err == nil) != c.ok || (c.ok && got != c.want) {
				t.Errorf("limits are %+v, %v", got, err)
			}
		})
	}
}
