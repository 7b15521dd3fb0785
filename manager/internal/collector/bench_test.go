package collector

import (
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/spool"
	"honeysens.org/dockersensor/shared/zmtp"
)

// BenchmarkEvents measures from the honeypot to the disk, acknowledged.
func BenchmarkEvents(b *testing.B) {
	request := body("SSH login of root with a password")
	newSocket := func(b *testing.B, addr string) func() error {
		return func() error {
			_, err := zmtp.Request(b.Context(), addr, request)
			return err
		}
	}
	keptSocket := func(b *testing.B, addr string) func() error {
		conn, _ := open(b, "127.0.0.1", addr, zmtp.TypeREQ)
		return func() error {
			if err := conn.Send(nil, request); err != nil {
				return err
			}
			_, err := conn.Receive()
			return err
		}
	}
	for _, bench := range []struct {
		name    string
		clients int
		client  func(*testing.B, string) func() error
	}{
		{"new/1", 1, newSocket}, {"new/8", 8, newSocket},
		{"kept/1", 1, keptSocket}, {"kept/8", 8, keptSocket},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s, err := spool.Open(spool.Config{Path: filepath.Join(b.TempDir(), "spool.db")}, zap.NewNop())
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = s.Close() })
			f := startWith(b, Config{}, s)
			work := make(chan struct{})
			var wg sync.WaitGroup
			for range bench.clients {
				send := bench.client(b, f.addr)
				wg.Go(func() {
					for range work {
						if err := send(); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
