package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/nettest"
)

// connections is how many are made in a row.
const connections = 100

// connect opens and closes them from a host, one after the other, and returns
// the time that it took.
func connect(b *testing.B, from *nettest.Host, address string) time.Duration {
	b.Helper()
	raddr, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	err = from.Do(func() error {
		for range connections {
			conn, err := net.DialTCP("tcp", nil, raddr)
			if err != nil {
				return err
			}
			// A reset keeps the port from waiting for a minute.
			if err := errors.Join(conn.SetLinger(0), conn.Close()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// BenchmarkNetnsConnections compares new connections to a honeypot through the
// redirect, with one port and with 10,000, with those to a listener of a host
// without any rules: over the same kind of cable and by turns, so that all get the
// same share of the machine. A ratio is what is left of the speed. That of 10,000
// ports must not differ from that of one by more than noise, which is how much a
// second host with one port differs from the first.
func BenchmarkNetnsConnections(b *testing.B) {
	hosts := []struct {
		name string
		from *nettest.Host
		took []time.Duration
	}{
		{name: "direct", from: directHost(b)}, {name: "one", from: redirectingHost(b, 1)},
		{name: "again", from: redirectingHost(b, 1)}, {name: "many", from: redirectingHost(b, 10000)},
	}
	for b.Loop() {
		for i := range hosts {
			hosts[i].took = append(hosts[i].took, connect(b, hosts[i].from, hosttest.HostV4+":22"))
		}
	}
	rate := map[string]float64{}
	for _, h := range hosts {
		rate[h.name] = connections / median(h.took)
	}
	b.ReportMetric(rate["direct"], "direct/s")
	b.ReportMetric(rate["one"], "redirected/s")
	b.ReportMetric(rate["one"]/rate["direct"], "ratio:ports=1")
	b.ReportMetric(rate["many"]/rate["direct"], "ratio:ports=10000")
	b.ReportMetric(100*(rate["many"]/rate["one"]-1), "%difference")
	b.ReportMetric(100*(rate["again"]/rate["one"]-1), "%noise")
}

// median is that of all rounds, in seconds: one that the machine had no time for
// does not count.
func median(rounds []time.Duration) float64 {
	slices.Sort(rounds)
	return rounds[len(rounds)/2].Seconds()
}

// directHost returns the neighbour of a host that listens itself.
func directHost(b *testing.B) *nettest.Host {
	b.Helper()
	host, neighbour := hosttest.NewHosts(b)
	var listener net.Listener
	err := host.Do(func() (err error) {
		listener, err = net.Listen("tcp", hosttest.HostV4+":22")
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	serve(b, listener, func(net.Conn) {})
	return neighbour
}

// redirectingHost returns the neighbour of a host with a sensor that has n ports.
func redirectingHost(b *testing.B, n int) *nettest.Host {
	b.Helper()
	h := newBench(b)
	ssh := hosttest.NewContainer(b, "ssh")
	listen(b, ssh, 2222, func(net.Conn) {})
	h.start()
	want := wanted(ssh)
	if n > 1 {
		want.Services[0].Ports = ports(n)
	}
	h.put(want)
	return h.attacker
}

var rss = regexp.MustCompile(`(?m)^(VmHWM|VmRSS|RssAnon):\s+(\d+) kB$`)

// BenchmarkNetnsMemory is what the helper needs with ten services of a hundred
// ports each, while it is asked for the state; VmHWM is the most it ever had.
func BenchmarkNetnsMemory(b *testing.B) {
	h := newBench(b)
	h.start()
	var containers []*hosttest.Container
	for i := range 10 {
		containers = append(containers, hosttest.NewContainer(b, fmt.Sprint("service", i)))
	}
	want := wanted(containers...)
	all := ports(1000)
	for i := range want.Services {
		want.Services[i].Ports = all[i*100 : i*100+100]
	}
	began := time.Now()
	for b.Loop() {
		h.put(want)
	}
	b.ReportMetric(float64(time.Since(began).Milliseconds())/float64(b.N), "ms/put")
	// As the manager does.
	for range 20 {
		h.get()
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(h.helper.Process.Pid), "status"))
	if err != nil {
		b.Fatal(err)
	}
	for _, match := range rss.FindAllSubmatch(status, -1) {
		kib, err := strconv.ParseFloat(string(match[2]), 64)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(kib/1024, string(match[1])+"-MiB")
	}
	if err := h.end(syscall.SIGTERM); err != nil {
		b.Error(err)
	}
}
