package main

import (
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/manager/internal/services"
)

// mega is a megabyte, the unit of the limits, and maxMega keeps them from
// overflowing.
const (
	mega    = 1 << 20
	maxMega = 1 << 24
)

// limitFlags bound each honeypot. Nothing, like an empty variable of a compose
// file, stands for the default.
func limitFlags() []cli.Flag {
	defaults := services.Limits{}.WithDefaults()
	return []cli.Flag{
		limitFlag("service-memory", "SERVICE_MEMORY", "`MB` of memory for each honeypot", defaults.Memory/mega),
		limitFlag("service-pids", "SERVICE_PIDS", "`NUMBER` of processes and threads for each honeypot", defaults.PIDs),
		limitFlag("service-cpu-weight", "SERVICE_CPU_WEIGHT", "`WEIGHT` of each honeypot when the processors are busy; the sensor has 1024", defaults.CPUWeight),
		limitFlag("service-disk", "SERVICE_DISK", "`MB` that each honeypot may write to its file system", defaults.Disk/mega),
		limitFlag("service-write-rate", "SERVICE_WRITE_RATE", "`MB` a second that each honeypot may write to the disk", defaults.WriteRate/mega),
		limitFlag("service-log-rate", "SERVICE_LOG_RATE", "`LINES` a second that each honeypot may print", int64(defaults.LogRate)),
		limitFlag("service-event-rate", "SERVICE_EVENT_RATE", "`EVENTS` a second that each honeypot may report in the long run", int64(defaults.EventRate)),
	}
}

func limitFlag(name, env, usage string, value int64) cli.Flag {
	return &cli.StringFlag{Name: name, EnvVars: []string{env}, Usage: usage, DefaultText: fmt.Sprint(value)}
}

func serviceLimits(c *cli.Context) (services.Limits, error) {
	values := map[string]int64{}
	for _, name := range []string{"service-memory", "service-pids", "service-cpu-weight", "service-disk", "service-write-rate", "service-log-rate", "service-event-rate"} {
		text := c.String(name)
		if text == "" {
			continue
		}
		value, err := strconv.ParseInt(text, 10, 64)
		if err != nil || value < 0 || value > maxMega {
			return services.Limits{}, fmt.Errorf("%s %.40q: want a number from 1 to %d", name, text, maxMega)
		}
		values[name] = value
	}
	limits := services.Limits{
		Memory: values["service-memory"] * mega, PIDs: values["service-pids"], CPUWeight: values["service-cpu-weight"],
		Disk: values["service-disk"] * mega, WriteRate: values["service-write-rate"] * mega, LogRate: int(values["service-log-rate"]), EventRate: int(values["service-event-rate"]),
	}
	return limits, limits.Validate()
}
