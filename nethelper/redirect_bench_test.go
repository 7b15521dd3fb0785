package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/nettest"
)

// connections opens and closes b.N of them from a host, one after the other.
func connections(b *testing.B, from *nettest.Host, address string) {
	b.Helper()
	raddr, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	err = from.Do(func() error {
		for b.Loop() {
			conn, err := net.DialTCP("tcp", nil, raddr)
			if err != nil {
				return err
			}
			// A reset keeps the port from waiting for a minute.
			if err := conn.SetLinger(0); err != nil {
				return err
			}
			if err := conn.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "conn/s")
}

// BenchmarkNetnsConnections compares new connections to a honeypot through the
// redirect with those to a listener of the host itself in a namespace without
// any rules, over the same kind of cable. What is lost to the redirect is the
// way through bridge and rules; it must not grow with the number of ports.
func BenchmarkNetnsConnections(b *testing.B) {
	b.Run("direct", func(b *testing.B) {
		host, attacker := hosttest.NewHosts(b)
		var listener net.Listener
		err := host.Do(func() (err error) {
			listener, err = net.Listen("tcp", hosttest.HostV4+":22")
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		serve(b, listener, func(net.Conn) {})
		connections(b, attacker, hosttest.HostV4+":22")
	})
	for _, n := range []int{1, 10000} {
		b.Run(fmt.Sprintf("redirected/ports=%d", n), func(b *testing.B) {
			h := newBench(b)
			ssh := hosttest.NewContainer(b, "ssh")
			listen(b, ssh, 2222, func(net.Conn) {})
			h.start()
			want := wanted(ssh)
			if n > 1 {
				want.Services[0].Ports = ports(n)
			}
			h.put(want)
			connections(b, h.attacker, hosttest.HostV4+":22")
		})
	}
}

var rss = regexp.MustCompile(`(?m)^(VmRSS|RssAnon):\s+(\d+) kB$`)

// BenchmarkNetnsMemory is what the helper needs with ten services of a hundred
// ports each, right after they were asked for.
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
