package spool

import (
	"bytes"
	"strconv"
	"sync"
	"testing"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/event"
)

func BenchmarkAppend(b *testing.B) {
	for _, producers := range []int{1, 8, 64} {
		b.Run(strconv.Itoa(producers), func(b *testing.B) {
			s, err := Open(Config{Path: path(b)}, zap.NewNop())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			body := bytes.Repeat([]byte("x"), 1024)
			var wg sync.WaitGroup
			work := make(chan struct{})
			for range producers {
				wg.Go(func() {
					for range work {
						if _, err := s.Append(b.Context(), event.Record{Received: at(1), Event: body}); err != nil {
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
