package catchall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/packaging/services/recon/internal/tracker"
	"honeysens.org/dockersensor/shared/event"
)

// Limits of a listener.
type Limits struct {
	// Connections bounds all, PerSource those of one address.
	Connections, PerSource int
	// First is how long the attacker may take to say something, More how long
	// after that he may go on. First is shorter than the silence that ends the
	// collection of a source, so that a payload still finds its event.
	First, More time.Duration
}

// DefaultLimits are what the honeypot runs with. A connection takes some 4 KB.
func DefaultLimits() Limits {
	return Limits{Connections: 5120, PerSource: 64, First: 5 * time.Second, More: 300 * time.Millisecond}
}

// flagSYN is what the segment that opened a connection carried.
const flagSYN = 0x02

// Listener accepts the connections to all ports, over IPv4 and IPv6.
type Listener struct {
	limits    Limits
	listeners []net.Listener
	port      uint16

	mu        sync.Mutex
	total     int
	perSource map[netip.Addr]int
	refused   uint64
}

// Listen opens the listener on a port of the kernel's choice. It needs
// CAP_NET_ADMIN, which the kernel wants for transparent sockets.
func Listen(ctx context.Context, limits Limits) (*Listener, error) {
	l := &Listener{limits: limits, perSource: map[netip.Addr]int{}}
	config := net.ListenConfig{Control: transparent}
	config.SetMultipathTCP(false)
	four, err := config.Listen(ctx, "tcp4", ":0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l.listeners = append(l.listeners, four)
	l.port = four.Addr().(*net.TCPAddr).AddrPort().Port()
	six, err := config.Listen(ctx, "tcp6", fmt.Sprintf(":%d", l.port))
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EADDRNOTAVAIL):
		// The kernel has no IPv6.
	case err != nil:
		_ = four.Close()
		return nil, fmt.Errorf("listen: %w", err)
	default:
		l.listeners = append(l.listeners, six)
	}
	return l, nil
}

// transparent lets a socket take what is for other ports.
func transparent(network, _ string, raw syscall.RawConn) error {
	var inner error
	err := raw.Control(func(fd uintptr) {
		if network == "tcp6" {
			inner = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1) // #nosec G115 -- a descriptor
			return
		}
		inner = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1) // #nosec G115 -- a descriptor
	})
	return errors.Join(err, inner)
}

// Port is the one that connections must be diverted to.
func (l *Listener) Port() uint16 { return l.port }

// Refused counts connections that were closed because there were too many.
func (l *Listener) Refused() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// Run accepts connections and gives what attackers say to take, until the
// context ends. It returns after the last connection has ended.
func (l *Listener) Run(ctx context.Context, take func(tracker.Probe)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		for _, listener := range l.listeners {
			_ = listener.Close()
		}
	})
	defer stop()
	results := make(chan error, len(l.listeners))
	for _, listener := range l.listeners {
		go func() { results <- l.accept(ctx, listener, take) }()
	}
	var all error
	for range l.listeners {
		all = errors.Join(all, <-results)
		cancel()
	}
	return all
}

func (l *Listener) accept(ctx context.Context, listener net.Listener, take func(tracker.Probe)) error {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if temporary(err) {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		source := peer(conn)
		if !l.enter(source.Addr()) {
			_ = conn.Close()
			continue
		}
		open.Go(func() {
			defer l.leave(source.Addr())
			l.serve(ctx, conn, source, take)
		})
	}
}

// temporary tells whether accept may succeed later: the client went away, or
// descriptors or memory ran out.
func temporary(err error) bool {
	for _, errno := range []error{unix.ECONNABORTED, unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EPERM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (l *Listener) enter(source netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.limits.Connections || l.perSource[source] >= l.limits.PerSource {
		l.refused++
		return false
	}
	l.total++
	l.perSource[source]++
	return true
}

func (l *Listener) leave(source netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.perSource[source]--; l.perSource[source] == 0 {
		delete(l.perSource, source)
	}
}

func (l *Listener) serve(ctx context.Context, conn net.Conn, source netip.AddrPort, take func(tracker.Probe)) {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	payload := l.read(conn)
	if len(payload) == 0 {
		// The capture has seen the connection already.
		return
	}
	take(tracker.Probe{
		Time: time.Now(), Source: source.Addr(), Protocol: event.ProtocolTCP,
		SourcePort: source.Port(), DstPort: conn.LocalAddr().(*net.TCPAddr).AddrPort().Port(),
		Flags: flagSYN, Payload: payload,
	})
}

// read returns what the attacker says first.
func (l *Listener) read(conn net.Conn) []byte {
	buffer := make([]byte, tracker.MaxPayload)
	wait, size := l.limits.First, 0
	for size < len(buffer) {
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		n, err := conn.Read(buffer[size:])
		size += n
		if err != nil {
			break
		}
		if wait == l.limits.First {
			wait = l.limits.More
		}
	}
	return buffer[:size]
}

func peer(conn net.Conn) netip.AddrPort {
	addr, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := addr.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
