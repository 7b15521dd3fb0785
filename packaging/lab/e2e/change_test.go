package e2e

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/packaging/services/archive"
)

const (
	changePort = 2400
	repository = "honeysens/changing"
	// visitors connect at the same time, each as often a second.
	visitors, often = 8, 30
)

// changeOver replaces a honeypot by its next revision, which shares a layer with
// it, under 200 new connections a second. None is refused, and the registry sends
// nothing but what is new.
func changeOver(t *testing.T, s *scenario.Scenario) {
	rootfs := bigLayer(t)
	file := program(t, "honeysens.org/dockersensor/packaging/lab/mischief")
	revise := func(revision string) admin.Service {
		t.Helper()
		mark := filepath.Join(t.TempDir(), "revision")
		labtest.Must(t, os.WriteFile(mark, []byte(revision), 0o600))
		return offer(t, s, archive.Metadata{
			Name: "changing", Repository: repository, Revision: revision, PortAssignment: fmt.Sprintf(`{"2222/tcp": %d}`, changePort),
		}, archive.ImageConfig{
			Rootfs: rootfs, Entrypoint: []string{"/mischief", "nothing", "revision-" + revision},
			Files: []archive.File{{From: file, To: "/mischief"}, {From: mark, To: "/revision"}},
		})
	}
	service := revise("1")
	labtest.Must(t, s.Server.Assign(t.Context(), s.Sensor.ID, admin.Assignment{Service: service.ID}))
	poll(t, s)
	serviceIs(t, s, service.ID, "running", "")
	defer func() {
		ctx := context.WithoutCancel(t.Context())
		labtest.Must(t, s.Server.Unassign(ctx, s.Sensor.ID, service.ID))
		_, err := s.Exec(ctx, "manager", "poll")
		labtest.Must(t, err)
	}()

	crowd := newCrowd(t, s)
	within(t, time.Minute, "the first revision answers", func() error { return crowd.heard("revision-1", 200) })
	fetched := len(registryLog(t, s))
	revise("2")
	poll(t, s)
	within(t, 2*time.Minute, "the second revision answers", func() error { return crowd.heard("revision-2", 2000) })
	crowd.end()
	t.Log(crowd)
	if len(crowd.failures) > 0 {
		t.Errorf("%d connections failed, the first: %v", len(crowd.failures), crowd.failures[0])
	}
	wantNewLayersOnly(t, s, registryLog(t, s)[fetched:])
}

// bigLayer is a root file system of 8 MiB that no compression makes smaller.
func bigLayer(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rootfs.tar")
	file, err := os.Create(path)
	labtest.Must(t, err)
	content := make([]byte, 8<<20)
	_, err = rand.Read(content)
	labtest.Must(t, err)
	out := tar.NewWriter(file)
	labtest.Must(t, out.WriteHeader(&tar.Header{Name: "base", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}))
	_, err = out.Write(content)
	labtest.Must(t, errors.Join(err, out.Close(), file.Close()))
	return path
}

// crowd connects to the honeypot time and again.
type crowd struct {
	stop context.CancelFunc
	done sync.WaitGroup
	from time.Time
	took time.Duration

	mu       sync.Mutex
	greeted  map[string]int
	failures []error
}

func newCrowd(t *testing.T, s *scenario.Scenario) *crowd {
	ctx, stop := context.WithCancel(t.Context())
	c := &crowd{stop: stop, greeted: map[string]int{}, from: time.Now()}
	for range visitors {
		c.done.Go(func() {
			_ = s.On(host.Attacker, func() error {
				c.visit(ctx, net.JoinHostPort(s.TargetV4, strconv.Itoa(changePort)))
				return nil
			})
		})
	}
	t.Cleanup(c.end)
	return c
}

func (c *crowd) visit(ctx context.Context, address string) {
	tick := time.NewTicker(time.Second / often)
	defer tick.Stop()
	for first := true; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		greeting, err := hear(address)
		c.mu.Lock()
		switch {
		case err == nil:
			first = false
			c.greeted[greeting]++
		case !first:
			// Before the first revision runs nobody answers.
			c.failures = append(c.failures, fmt.Errorf("%s after %d visits: %w", time.Now().Format(time.TimeOnly), len(c.greeted), err))
		}
		c.mu.Unlock()
	}
}

// hear connects and reads the greeting.
func hear(address string) (string, error) {
	conn, err := net.DialTimeout("tcp4", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// heard tells whether a greeting was heard often enough.
func (c *crowd) heard(greeting string, times int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if got := c.greeted[greeting]; got < times {
		return fmt.Errorf("%s was heard %d times, of %v", greeting, got, c.greeted)
	}
	return nil
}

func (c *crowd) end() {
	c.stop()
	c.done.Wait()
	if c.took == 0 {
		c.took = time.Since(c.from)
	}
}

func (c *crowd) String() string {
	all := 0
	for _, n := range c.greeted {
		all += n
	}
	return fmt.Sprintf("%d connections in %s, %.0f a second: %v, %d failed", all, c.took.Round(time.Second), float64(all)/c.took.Seconds(), c.greeted, len(c.failures))
}

// registryLog returns the lines of the registry's log about fetched blobs.
func registryLog(t *testing.T, s *scenario.Scenario) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Lab.Dir(), "registry.log"))
	labtest.Must(t, err)
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `"GET /v2/`+repository+"/blobs/") {
			lines = append(lines, line)
		}
	}
	return lines
}

var blobLine = regexp.MustCompile(`/blobs/(sha256:[0-9a-f]+) HTTP/1.1" (\d+) (\d+)`)

// manifest is what the registry has of a revision.
type manifest struct {
	Config blob   `json:"config"`
	Layers []blob `json:"layers"`
}

type blob struct {
	Digest string `json:"digest"`
	Size   int    `json:"size"`
}

func readManifest(t *testing.T, s *scenario.Scenario, revision string) manifest {
	t.Helper()
	var m manifest
	err := s.On(host.Server, func() error {
		// A connection of its own: it belongs to the machine of this thread.
		conn, err := net.Dial("tcp4", "127.0.0.1:5000")
		if err != nil {
			return err
		}
		defer conn.Close()
		request := "GET /v2/" + repository + "/manifests/amd64-" + revision + " HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n" +
			"Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json\r\n\r\n"
		if _, err := conn.Write([]byte(request)); err != nil {
			return err
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return json.NewDecoder(resp.Body).Decode(&m)
	})
	labtest.Must(t, err)
	return m
}

// wantNewLayersOnly compares what the registry has sent with what is new in the
// second revision.
func wantNewLayersOnly(t *testing.T, s *scenario.Scenario, lines []string) {
	t.Helper()
	before, after := readManifest(t, s, "1"), readManifest(t, s, "2")
	known := map[string]bool{}
	for _, layer := range before.Layers {
		known[layer.Digest] = true
	}
	fresh, shared := 0, 0
	isNew := map[string]bool{}
	for _, layer := range after.Layers {
		if known[layer.Digest] {
			shared += layer.Size
			continue
		}
		isNew[layer.Digest] = true
		fresh += layer.Size
	}
	sent, rest := 0, 0
	for _, line := range lines {
		found := blobLine.FindStringSubmatch(line)
		if found == nil {
			t.Errorf("log of the registry: %s", line)
			continue
		}
		size, err := strconv.Atoi(found[3])
		labtest.Must(t, err)
		switch {
		case isNew[found[1]]:
			sent += size
		case found[1] == after.Config.Digest:
		default:
			rest += size
		}
	}
	t.Logf("new layers of %d bytes, shared ones of %d; the registry has sent %d bytes of layers and %d of others", fresh, shared, sent, rest)
	if fresh == 0 || shared < 8<<20 || sent != fresh || rest != 0 {
		t.Errorf("the registry sent %d and %d bytes, want %d and 0", sent, rest, fresh)
	}
}
