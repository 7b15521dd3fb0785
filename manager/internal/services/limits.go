package services

import (
	"errors"
	"fmt"
)

// Limits is what one honeypot may use. Zero values take the defaults.
type Limits struct {
	// Memory is in bytes, swap included. Default: 512 MiB.
	Memory int64
	// PIDs bounds processes and threads. Default: 256.
	PIDs int64
	// CPUWeight is its part of the processors when they are all busy, where the
	// sensor's own programs have 1024 (docker run --cpu-shares). Default: 256.
	CPUWeight int64
	// Disk bounds what it writes into its file system, in bytes: the engine's
	// runtime makes one of that size, and when it is full the honeypot is ended.
	// Default: 256 MiB.
	Disk int64
	// WriteRate bounds what it writes to the disk in the long run, in bytes a
	// second. Default: 16 MiB.
	WriteRate int64
	// LogRate bounds the lines a second that it may print. Default: 200.
	LogRate int
	// EventRate is how many events a second it may report in the long run; beyond
	// that it is held back. Default: 200.
	EventRate int
}

// The least that a honeypot can be started with: the engine's runtime starts
// within the same limits.
const (
	minMemory = 16 << 20
	minPIDs   = 16
	minWeight = 2
	minDisk   = 1 << 20
)

// WithDefaults returns the limits with what is missing.
func (l Limits) WithDefaults() Limits {
	setDefault(&l.Memory, 512<<20)
	setDefault(&l.PIDs, 256)
	setDefault(&l.CPUWeight, 256)
	setDefault(&l.Disk, 256<<20)
	setDefault(&l.WriteRate, 16<<20)
	setDefault(&l.LogRate, 200)
	setDefault(&l.EventRate, 200)
	return l
}

func setDefault[T int | int64](value *T, to T) {
	if *value == 0 {
		*value = to
	}
}

// Validate tells whether a honeypot can live with the limits; zero values are
// good.
func (l Limits) Validate() error {
	l = l.WithDefaults()
	var errs []error
	for _, limit := range []struct {
		name        string
		value, want int64
	}{
		{"memory in bytes", l.Memory, minMemory}, {"processes", l.PIDs, minPIDs}, {"CPU weight", l.CPUWeight, minWeight},
		{"disk space in bytes", l.Disk, minDisk}, {"bytes written a second", l.WriteRate, 1},
		{"log lines a second", int64(l.LogRate), 1},
		{"events a second", int64(l.EventRate), 1},
	} {
		if limit.value < limit.want {
			errs = append(errs, fmt.Errorf("limit of services: %d %s: want %d or more", limit.value, limit.name, limit.want))
		}
	}
	return errors.Join(errs...)
}
