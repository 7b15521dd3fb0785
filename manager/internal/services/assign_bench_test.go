package services

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/network"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// realNetwork is the helper, as the manager uses it.
type realNetwork struct{ *network.Client }

// Apply asks for a network with these services.
func (n realNetwork) Apply(ctx context.Context, services []helperapi.Service) (helperapi.Observed, error) {
	return n.Client.Apply(ctx, helperapi.Network{
		Interface: helperapi.Interface{Name: "eth0", Mode: helperapi.ModeNone},
		Bridge:    helperapi.Bridge{V4: netip.MustParsePrefix("10.10.10.0/24"), CollectorPort: 5556},
		Services:  services, Egress: helperapi.EgressDeny,
	})
}

// startHelper runs the real helper on the engine's host until the end.
func (b *bench) startHelper() Network {
	b.t.Helper()
	dir := b.t.TempDir()
	for _, pkg := range []string{
		"honeysens.org/dockersensor/nethelper", "honeysens.org/dockersensor/cni/offload",
		"github.com/containernetworking/plugins/plugins/main/bridge", "github.com/containernetworking/plugins/plugins/ipam/host-local",
	} {
		b.command("go", "build", "-o", dir+"/", pkg)
	}
	socket := filepath.Join(dir, "helper.sock")
	cmd := exec.Command(filepath.Join(dir, "nethelper"), "serve", "--socket", socket, "--allow-uid", "0", "--iface", "eth0",
		"--sensor-id", strings.Repeat("a1b2c3d4", 8), "--cni-bin-dir", dir, "--state-dir", filepath.Join(dir, "state"), "--log-level", "error")
	if err := b.Host.Start(cmd); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	client := realNetwork{network.New(network.Config{Socket: socket}, zap.NewNop())}
	b.wait("the helper serves", func() bool {
		_, err := client.Observe(b.t.Context())
		return err == nil
	})
	return client
}

// wait waits for a condition, with little between two looks.
func (b *bench) wait(what string, holds func() bool) {
	b.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("never: %s", what)
		}
	}
}

// BenchmarkAssign measures the time from an answer of the server that assigns a
// service, whose image is at hand, to the first connection of an attacker that the
// honeypot answers: with a real engine, the real helper and real packets. For
// comparison the engine alone starts two containers of the same kind, without a
// network.
func BenchmarkAssign(b *testing.B) {
	bench := newBench(b)
	bench.log = zap.NewNop()
	attacker := nettest.NewHost(b, "attacker")
	nettest.Connect(bench.Host, "eth0", []string{"192.0.2.1/24"}, attacker, "eth0", []string{"192.0.2.2/24"})
	program := filepath.Join(b.TempDir(), "mischief")
	bench.command("go", "build", "-o", program, "honeysens.org/dockersensor/packaging/lab/mischief")
	bench.pushProgram(program, "honeypot:bench", "nothing")
	bench.services = New(Config{Interface: "eth0", CollectorPort: 5556}, NewDocker(bench.Client, bench.log), bench.images, bench.startHelper(), bench.log)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		bench.services.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	keeper := Wanted{ID: "9", Label: "keeps the image", Image: "honeypot:bench"}
	bench.services.SetWanted([]Wanted{keeper})
	bench.running("9")

	ssh := Wanted{ID: "1", Label: "ssh", Image: "honeypot:bench", Ports: []helperapi.Assignment{
		{Port: helperapi.Port{Protocol: helperapi.TCP, Number: 22}, To: 2222},
	}}
	var alone time.Duration
	runs := 0
	for b.Loop() {
		bench.services.SetWanted([]Wanted{keeper, ssh})
		bench.wait("an attacker is answered", func() bool { return answered(attacker) })
		b.StopTimer()
		bench.services.SetWanted([]Wanted{keeper})
		bench.wait("the service is gone", func() bool {
			return len(bench.services.States()) == 1 && !bench.exists("s1") && !bench.exists("s1.net")
		})
		alone += bench.engineAlone(runs)
		runs++
		b.StartTimer()
	}
	perEngine := float64(alone.Milliseconds()) / float64(runs)
	b.ReportMetric(perEngine, "engine-ms/op")
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(runs)/perEngine, "x-engine")
}

func answered(attacker *nettest.Host) bool {
	return attacker.Do(func() error {
		conn, err := net.DialTimeout("tcp4", "192.0.2.1:22", 100*time.Millisecond)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		_, err = io.ReadFull(conn, make([]byte, 1))
		return err
	}) == nil
}

func (b *bench) exists(name string) bool {
	_, err := b.Client.ContainerInspect(b.t.Context(), name)
	return err == nil
}

// engineAlone starts two containers one after the other, and returns how long that
// took.
func (b *bench) engineAlone(n int) time.Duration {
	b.t.Helper()
	image, _, err := b.images.Present(b.t.Context(), "honeypot:bench")
	if err != nil {
		b.t.Fatal(err)
	}
	start := time.Now()
	var made []string
	for i := range 2 {
		created, err := b.Client.ContainerCreate(b.t.Context(), &container.Config{Image: image},
			&container.HostConfig{NetworkMode: "none"}, nil, nil, fmt.Sprintf("alone-%d-%d", n, i))
		if err == nil {
			err = b.Client.ContainerStart(b.t.Context(), created.ID, container.StartOptions{})
		}
		if err != nil {
			b.t.Fatal(err)
		}
		made = append(made, created.ID)
	}
	took := time.Since(start)
	for _, id := range made {
		if err := b.Client.ContainerRemove(b.t.Context(), id, container.RemoveOptions{Force: true}); err != nil {
			b.t.Fatal(err)
		}
	}
	return took
}
