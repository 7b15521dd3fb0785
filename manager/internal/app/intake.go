package app

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

// listenRetry is how soon a listener is tried again whose address is not there.
const listenRetry = time.Second

// server takes what arrives at a listener until ctx ends, and closes it.
type server interface {
	Serve(ctx context.Context, listener net.Listener) error
}

// intake keeps the collector listening where the honeypots look for it: at the
// gateway address of the services bridge, which can change, or at a fixed one.
type intake struct {
	server server
	port   uint16
	// fixed is the operator's own address; honeypots are then not known by theirs.
	fixed string
	log   *zap.Logger

	mu        sync.Mutex
	listening string
	err       error
}

// run follows the keeper's state until ctx ends.
func (i *intake) run(ctx context.Context, k *keeper) {
	if i.fixed != "" {
		i.serveAt(ctx, i.fixed)
		return
	}
	for ctx.Err() == nil {
		state := k.state()
		gateway := state.observed.Bridge.GatewayV4
		if !gateway.IsValid() {
			select {
			case <-state.changed:
			case <-ctx.Done():
			}
			continue
		}
		i.serveWhile(ctx, k, gateway)
	}
}

// serveWhile serves at the gateway for as long as it is the gateway.
func (i *intake) serveWhile(ctx context.Context, k *keeper, gateway netip.Addr) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		i.serveAt(ctx, netip.AddrPortFrom(gateway, i.port).String())
	}()
	for {
		state := k.state()
		if state.observed.Bridge.GatewayV4 != gateway {
			break
		}
		select {
		case <-state.changed:
			continue
		case <-ctx.Done():
		}
		break
	}
	cancel()
	<-done
}

// serveAt listens until ctx ends, trying again while that is not possible.
func (i *intake) serveAt(ctx context.Context, address string) {
	for ctx.Err() == nil {
		err := i.serveOnce(ctx, address)
		if ctx.Err() != nil {
			break
		}
		i.set("", err)
		i.log.Warn("collector cannot listen", zap.String("address", address), zap.Error(err))
		select {
		case <-time.After(listenRetry):
		case <-ctx.Done():
		}
	}
	i.set("", nil)
}

func (i *intake) serveOnce(ctx context.Context, address string) error {
	var cfg net.ListenConfig
	cfg.SetMultipathTCP(false)
	listener, err := cfg.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for honeypots: %w", err)
	}
	i.set(listener.Addr().String(), nil)
	i.log.Info("collector listens", zap.String("address", address))
	return i.server.Serve(ctx, listener)
}

func (i *intake) set(listening string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.listening, i.err = listening, err
}

// state returns the address at which the collector listens, or why it does not.
func (i *intake) state() (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.listening, i.err
}
