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
	for _, step := range []struct {
		after time.Duration
		count int64
		want  int64
	}{
		{0, 1000, 0}, {time.Second, 9000, 0}, {guardEvery, 6000, 1000}, {guardEvery + time.Second, 1 << 30, 1000},
		{2 * guardEvery, 6000, 0}, {3 * guardEvery, 0, 0}, {4 * guardEvery, 1 << 40, 0}, {5 * guardEvery, 1<<40 + 5000, 1000},
	} {
		if got := m.rate("a", step.count, start.Add(step.after)); got != step.want {
			t.Errorf("after %s and %d: %d, want %d", step.after, step.count, got, step.want)
		}
	}
	m.rate("b", 1, start)
	m.forget([]Container{{ID: "b"}})
	if len(m.of) != 1 {
		t.Errorf("meters are %v", m.of)
	}
}

func TestWritten(t *testing.T) {
	sys := t.TempDir()
	put := func(path, text string) {
		path = filepath.Join(sys, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("fs/ext4/loop0/lifetime_write_kbytes", "7\n")
	put("block/loop1/loop/backing_file", "/var/lib/docker/containers/abc/files.img\n")
	put("fs/ext4/loop1/lifetime_write_kbytes", "1024\n")
	put("block/loop2/loop/backing_file", "/containers/abcd/files.img (deleted)\n")
	put("fs/ext4/loop2/lifetime_write_kbytes", "many\n")
	put("block/loop3/loop/backing_file", "/containers/abcde/files.img\n")
	for id, want := range map[string]int64{"abc": 1 << 20, "abcd": 0, "abcde": 0, "ab": 0} {
		if got := written(sys, id); got != want {
			t.Errorf("%s: %d, want %d", id, got, want)
		}
	}
}
