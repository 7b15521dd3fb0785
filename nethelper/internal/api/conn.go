package api

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/unixsock"
)

// slotConn gives its slot back when it is closed.
type slotConn struct {
	net.Conn
	peer    unixsock.Peer
	once    sync.Once
	release func()
	// unheard is true between the first byte of a request and the moment when
	// the handler sees it.
	unheard atomic.Bool
}

// Close closes the connection.
func (c *slotConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}

type connKey struct{}

// withConn tells handlers which connection a request came on, and from whom.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	slot, ok := conn.(*slotConn)
	if !ok {
		return unixsock.WithPeer(ctx, conn)
	}
	return context.WithValue(unixsock.WithPeer(ctx, slot.Conn), connKey{}, slot)
}

// heard notes that a request has reached us.
func heard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slot, ok := r.Context().Value(connKey{}).(*slotConn); ok {
			slot.unheard.Store(false)
		}
		next.ServeHTTP(w, r)
	})
}

// connState leaves an audit line about what never became a request: half of
// one, a slow one, or something else altogether. The HTTP server answers those
// by itself.
func (s *Server) connState(conn net.Conn, state http.ConnState) {
	slot, ok := conn.(*slotConn)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		slot.unheard.Store(true)
	case http.StateClosed:
		if !slot.unheard.Load() {
			return
		}
		s.log.Warn("refused request", zap.Uint32("uid", slot.peer.UID), zap.Int32("pid", slot.peer.PID),
			zap.String("kind", string(helperapi.KindInvalid)), zap.String("reason", "not a whole request in time"))
	case http.StateNew, http.StateIdle, http.StateHijacked:
	}
}
