package zmtp

import (
	"context"
	"fmt"
	"net"
	"time"
)

// maxReply bounds what a collector may answer, in bytes.
const maxReply = 64 << 10

// Request opens a REQ socket of its own to a REP or ROUTER at "host:port",
// sends one request, and returns the reply. It waits as long as ctx allows.
//
// An error after the request was sent does not tell whether it was received:
// who repeats it delivers at least once.
func Request(ctx context.Context, addr string, body []byte) ([]byte, error) {
	reply, err := request(ctx, addr, body)
	if err != nil {
		// What a deadline does to a socket is only a symptom.
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("request to %s: %w", addr, err)
	}
	return reply, nil
}

func request(ctx context.Context, addr string, body []byte) ([]byte, error) {
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = raw.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	conn, err := NewConn(raw, Config{Type: TypeREQ, Peers: []string{TypeREP, TypeROUTER}, MaxMessage: maxReply})
	if err != nil {
		return nil, err
	}
	if err := conn.Send(nil, body); err != nil {
		return nil, err
	}
	parts, err := conn.Receive()
	if err != nil {
		return nil, fmt.Errorf("receive reply: %w", truncated(err))
	}
	if len(parts) != 2 || len(parts[0]) != 0 {
		return nil, fmt.Errorf("reply has %d parts, want an empty one and a body", len(parts))
	}
	return parts[1], nil
}
