package services

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

// maxStats bounds the engine's answer about a container, in bytes, and
// maxLogLines what is counted of its output.
const (
	maxStats    = 1 << 20
	maxLogLines = 5000
)

// Usage asks the engine for what a container uses.
func (d *Docker) Usage(ctx context.Context, id string, since time.Time) (Usage, error) {
	var u Usage
	details, _, err := d.client.ContainerInspectWithRaw(ctx, id, true)
	if err != nil {
		return u, fmt.Errorf("size of container %.12s: %w", id, err)
	}
	if details.SizeRw != nil {
		u.Disk = *details.SizeRw
	}
	u.Written = written("/sys", id)
	if err := d.stats(ctx, id, &u); err != nil {
		return u, err
	}
	return u, d.printed(ctx, id, since, &u)
}

// written is what the file system of a container has handed to the disk since it was
// made, in bytes, over all its starts, or 0 when it has none of its own. The kernel
// tells of each loop device in which file it is, and of an ext4 file system how many
// kilobytes were written to it (Documentation/ABI/testing/sysfs-fs-ext4). The
// device's own counter would not do: it also has what was written for others before.
func written(sys, id string) int64 {
	files, err := filepath.Glob(filepath.Join(sys, "block/loop*/loop/backing_file"))
	if err != nil {
		return 0
	}
	for _, file := range files {
		backing, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(backing), "/containers/"+id+"/") {
			continue
		}
		device := filepath.Base(filepath.Dir(filepath.Dir(file)))
		text, err := os.ReadFile(filepath.Join(sys, "fs/ext4", device, "lifetime_write_kbytes"))
		if kilobytes, parseErr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && parseErr == nil {
			return kilobytes << 10
		}
	}
	return 0
}

func (d *Docker) stats(ctx context.Context, id string, u *Usage) error {
	answer, err := d.client.ContainerStatsOneShot(ctx, id)
	if err != nil {
		return fmt.Errorf("use of container %.12s: %w", id, err)
	}
	defer answer.Body.Close()
	var stats container.StatsResponse
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxStats)).Decode(&stats); err != nil {
		return fmt.Errorf("use of container %.12s: %w", id, err)
	}
	// What belongs to the processes themselves: "rss" of cgroup v1, "anon" of v2.
	own := stats.MemoryStats.Stats["anon"] + stats.MemoryStats.Stats["rss"]
	u.Memory, u.PIDs = int64(own), int64(stats.PidsStats.Current) // #nosec G115 -- the kernel's, below 2^63
	return nil
}

// printed counts the output since then.
func (d *Docker) printed(ctx context.Context, id string, since time.Time, u *Usage) error {
	stream, err := d.client.ContainerLogs(ctx, id, container.LogsOptions{
		ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(maxLogLines), Since: since.Format(time.RFC3339Nano),
	})
	if err != nil {
		return fmt.Errorf("output of container %.12s: %w", id, err)
	}
	defer stream.Close()
	lines := &counter{u}
	// The end of the limit may cut a line.
	_, _ = stdcopy.StdCopy(lines, lines, io.LimitReader(stream, maxLogBytes+maxLogBytes/2))
	return nil
}

// counter counts lines: the engine hands them on one by one.
type counter struct{ usage *Usage }

func (c *counter) Write(line []byte) (int, error) {
	c.usage.LogLines++
	c.usage.LogBytes += len(line)
	return len(line), nil
}
