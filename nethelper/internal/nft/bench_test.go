package nft

import (
	"fmt"
	"testing"

	"honeysens.org/dockersensor/shared/nettest"
)

// BenchmarkNetnsApply is the time to put a table in force in place of another.
func BenchmarkNetnsApply(b *testing.B) {
	for _, n := range []int{1, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("ports=%d", n), func(b *testing.B) {
			table := open(b, nettest.NewHost(b, "host"))
			cfg := example()
			cfg.Services[0].Ports = ports(n)
			want := build(b, cfg)
			for b.Loop() {
				if err := table.Apply(b.Context(), want); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkNetnsHeartbeat is the time that each sign of life takes.
func BenchmarkNetnsHeartbeat(b *testing.B) {
	table := open(b, nettest.NewHost(b, "host"))
	apply(b, table, example())
	for b.Loop() {
		if err := table.Heartbeat(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
