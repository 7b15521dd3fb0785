package services

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMeterMeasuresOverSpans(t *testing.T) {
	var m meters
	start := time.Now()
	again := start.Add(3 * guardEvery)
	for _, step := range []struct {
		after time.Duration
		since time.Time
		count int64
		want  int64
	}{
		{0, start, 1000, 0}, {time.Second, start, 9000, 0}, {guardEvery, start, 6000, 1000}, {guardEvery + time.Second, start, 1 << 30, 1000},
		{2 * guardEvery, start, 6000, 0},
		// Another counter, which has counted for others; it is unknown for a while.
		{3 * guardEvery, again, 1 << 40, 0}, {4 * guardEvery, again, 1<<40 + 5000, 1000},
		{5 * guardEvery, again, 0, 0}, {6 * guardEvery, again, 1<<40 + 9000, 0}, {7 * guardEvery, again, 1<<40 + 19000, 2000},
	} {
		if got := m.rate("a", step.since, step.count, start.Add(step.after)); got != step.want {
			t.Errorf("after %s and %d: %d, want %d", step.after, step.count, got, step.want)
		}
	}
	m.rate("b", start, 1, start)
	m.forget([]Container{{ID: "b"}})
	if len(m.of) != 1 {
		t.Errorf("meters are %v", m.of)
	}
}

func TestWritten(t *testing.T) {
	devices := t.TempDir()
	put := func(path, text string) {
		path = filepath.Join(devices, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("loop0/stat", "1 2 3 4 5 6 7 8\n")
	put("loop1/stat", " 10 0 80 1 20 0 2048 7 0 1 1 0 0\n")
	put("loop1/loop/backing_file", "/var/lib/docker/containers/abc/files.img\n")
	put("loop2/stat", "1 2\n")
	put("loop2/loop/backing_file", "/containers/abcd/files.img (deleted)\n")
	for id, want := range map[string]int64{"abc": 1 << 20, "abcd": 0, "ab": 0} {
		if got := written(devices, id); got != want {
			t.Errorf("%s: %d, want %d", id, got, want)
		}
	}
}
