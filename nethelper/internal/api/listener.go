package api

import (
	"net"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/unixsock"
)

// guarded refuses peers that may not even read, and keeps the number of
// connections down by not accepting more.
type guarded struct {
	net.Listener
	may   func(unixsock.Peer) bool
	slots chan struct{}
	ended chan struct{}
	log   *zap.Logger
}

// Accept returns the next connection of a peer that may talk to us.
func (g *guarded) Accept() (net.Conn, error) {
	if err := g.slot(); err != nil {
		return nil, err
	}
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			<-g.slots
			return nil, err
		}
		peer, err := unixsock.PeerOf(conn)
		if err == nil && g.may(peer) {
			return &slotConn{Conn: conn, peer: peer, release: func() { <-g.slots }}, nil
		}
		g.log.Warn("refused connection", zap.Uint32("uid", peer.UID), zap.Uint32("gid", peer.GID),
			zap.Int32("pid", peer.PID), zap.Error(err))
		if err := conn.Close(); err != nil {
			g.log.Debug("close connection", zap.Error(err))
		}
	}
}

// slot waits until another connection may come. That nobody else gets in
// meanwhile is worth a line, one for all who wait.
func (g *guarded) slot() error {
	select {
	case g.slots <- struct{}{}:
		return nil
	default:
	}
	g.log.Warn("refused further connections for now", zap.Int("open", cap(g.slots)), zap.String("kind", string(helperapi.KindUnavailable)))
	select {
	case g.slots <- struct{}{}:
		return nil
	case <-g.ended:
		return net.ErrClosed
	}
}

// Close ends Accept, also while it waits for a slot.
func (g *guarded) Close() error {
	select {
	case <-g.ended:
	default:
		close(g.ended)
	}
	return g.Listener.Close()
}
