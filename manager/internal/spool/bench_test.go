package spool

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/event"
)

// BenchmarkAppend measures synced events a second, and as a ratio to a bare log
// in the same run: the least that keeps the promise. That log has no place for
// what the spool does besides, such as letting go single events.
func BenchmarkAppend(b *testing.B) {
	for _, producers := range []int{1, 8, 64} {
		b.Run(strconv.Itoa(producers), func(b *testing.B) {
			s, err := Open(Config{Path: path(b)}, zap.NewNop())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			body := bytes.Repeat([]byte("x"), 1024)
			work, done := atOnce(producers, func() {
				if _, err := s.Append(b.Context(), event.Record{Received: at(1), Event: body}); err != nil {
					b.Error(err)
				}
			})
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			done()
			rate := float64(b.N) / b.Elapsed().Seconds()
			b.ReportMetric(rate, "events/s")
			b.ReportMetric(rate/bareRate(b, producers, body), "of-a-bare-log")
		})
	}
}

// atOnce calls a function from some goroutines, once for each word on the
// channel; done waits for all after it was closed.
func atOnce(n int, do func()) (work chan<- struct{}, done func()) {
	words := make(chan struct{})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for range words {
				do()
			}
		})
	}
	return words, wg.Wait
}

// bareRate is how many events a second a bare log takes in the same way.
func bareRate(b *testing.B, producers int, body []byte) float64 {
	b.Helper()
	file, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	waiting := make(chan chan struct{}, producers)
	written := make(chan struct{})
	go func() {
		defer close(written)
		for first := range waiting {
			writeBare(b, file, body, first, waiting)
		}
	}()
	work, done := atOnce(producers, func() {
		mine := make(chan struct{})
		waiting <- mine
		<-mine
	})
	count, began := 0, time.Now()
	for time.Since(began) < time.Second {
		work <- struct{}{}
		count++
	}
	close(work)
	done()
	took := time.Since(began)
	close(waiting)
	<-written
	return float64(count) / took.Seconds()
}

// writeBare writes and syncs what waits, and tells who does.
func writeBare(b *testing.B, file *os.File, body []byte, first chan struct{}, waiting chan chan struct{}) {
	told := []chan struct{}{first}
	for len(waiting) > 0 {
		told = append(told, <-waiting)
	}
	if _, err := file.Write(bytes.Repeat(body, len(told))); err != nil {
		b.Error(err)
	}
	if err := unix.Fdatasync(int(file.Fd())); err != nil {
		b.Error(err)
	}
	for _, c := range told {
		close(c)
	}
}
