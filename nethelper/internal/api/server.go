package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/unixsock"
)

// Limits of the API.
const (
	maxConnections = 16
	maxHeader      = 8 << 10
	readTimeout    = 10 * time.Second
	// applyTimeout bounds one change: an attachment takes some 30 ms, and
	// helperapi.MaxServices of them are a lot.
	applyTimeout = 60 * time.Second
	idleTimeout  = 2 * time.Minute
	// drainTimeout is what requests get at the end; an engine kills ten seconds
	// after it asked to stop.
	drainTimeout = 4 * time.Second
)

// Network is what the API is about.
type Network interface {
	// Apply puts the wanted state in force, all or nothing.
	Apply(ctx context.Context, want helperapi.Network) (helperapi.Observed, error)
	Observe(ctx context.Context) (helperapi.Observed, error)
	// Probe makes a connection that arrives at the interface.
	Probe(ctx context.Context, p helperapi.Probe) (helperapi.ProbeResult, error)
	// Release lets go of everything but the interface.
	Release(ctx context.Context) (helperapi.Observed, error)
}

// Config says who may do what.
type Config struct {
	// Writer is the uid that may read and write. Root may read.
	Writer uint32
	Health helperapi.Health
}

// Server answers requests.
type Server struct {
	cfg     Config
	network Network
	log     *zap.Logger
	// readTimeout is the constant of that name, but in tests.
	readTimeout time.Duration
	// changing has room for the one change at a time.
	changing chan struct{}
	broken   chan error
}

// New returns a server of the network.
func New(cfg Config, network Network, log *zap.Logger) *Server {
	return &Server{
		cfg: cfg, network: network, log: log, readTimeout: readTimeout,
		changing: make(chan struct{}, 1), broken: make(chan error, 1),
	}
}

// Serve answers on the listener, which it closes, until ctx ends or a handler
// panics; the latter is an error.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           heard(http.HandlerFunc(s.dispatch)),
		ConnContext:       withConn,
		ConnState:         s.connState,
		ReadHeaderTimeout: s.readTimeout,
		ReadTimeout:       s.readTimeout,
		WriteTimeout:      applyTimeout + s.readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          zap.NewStdLog(s.log),
		// It would answer before anybody has looked at who asks.
		DisableGeneralOptionsHandler: true,
	}
	guard := &guarded{
		Listener: listener, may: func(p unixsock.Peer) bool { return s.may(p, false) },
		slots: make(chan struct{}, maxConnections), ended: make(chan struct{}), log: s.log,
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(guard) }()
	var err error
	select {
	case err = <-done:
		return fmt.Errorf("serve: %w", err)
	case err = <-s.broken:
		return errors.Join(err, server.Close(), ended(<-done))
	case <-ctx.Done():
		// A change that is under way comes to its end.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if err := server.Shutdown(grace); err != nil {
			s.log.Warn("requests were cut off", zap.Error(errors.Join(err, server.Close())))
		}
		return ended(<-done)
	}
}

func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// may tells whether a peer may write, or at least read.
func (s *Server) may(peer unixsock.Peer, write bool) bool {
	return peer.UID == s.cfg.Writer || (peer.UID == 0 && !write)
}

// route is an endpoint with the right that it needs.
type route struct {
	method, path string
	write        bool
	handle       func(context.Context, *http.Request) (any, error)
}

func (s *Server) routes() []route {
	return []route{
		{http.MethodPut, helperapi.PathNetwork, true, s.putNetwork},
		{http.MethodGet, helperapi.PathNetwork, false, s.getNetwork},
		{http.MethodDelete, helperapi.PathNetwork, true, s.deleteNetwork},
		{http.MethodPost, helperapi.PathProbe, true, s.postProbe},
		{http.MethodGet, helperapi.PathHealth, false, s.getHealth},
	}
}

// dispatch finds the route. A target that is only nearly the path of one, such
// as a path that needs cleaning, is none.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request) {
	for _, route := range s.routes() {
		if r.Method == route.method && r.URL.Path == route.path && r.URL.RawQuery == "" {
			s.serve(route, w, r)
			return
		}
	}
	s.refuse(w, r, &helperapi.Error{Kind: helperapi.KindInvalid, Message: "there is no such method or path"})
}

// serve checks the right of the caller before the handler sees anything.
func (s *Server) serve(to route, w http.ResponseWriter, req *http.Request) {
	defer s.breakOnPanic()
	peer, ok := unixsock.PeerFrom(req.Context())
	if !ok || !s.may(peer, to.write) {
		s.refuse(w, req, &helperapi.Error{Kind: helperapi.KindDenied, Message: "this user may not do that"})
		return
	}
	req.Body = http.MaxBytesReader(w, req.Body, helperapi.MaxBody)
	answer, err := to.handle(req.Context(), req)
	if err != nil {
		s.refuse(w, req, err)
		return
	}
	s.answer(w, http.StatusOK, answer)
}

func (s *Server) breakOnPanic() {
	reason := recover()
	if reason == nil {
		return
	}
	s.log.Error("handler panicked", zap.Any("reason", reason), zap.ByteString("stack", debug.Stack()))
	select {
	case s.broken <- fmt.Errorf("handler panicked: %v", reason):
	default:
	}
	panic(http.ErrAbortHandler)
}

func (s *Server) putNetwork(ctx context.Context, r *http.Request) (any, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, &helperapi.Error{Kind: helperapi.KindInvalid, Message: fmt.Sprintf("read body: %v", err)}
	}
	want, err := helperapi.DecodeNetwork(body)
	if err != nil {
		return nil, err
	}
	select {
	case s.changing <- struct{}{}:
		defer func() { <-s.changing }()
	default:
		return nil, &helperapi.Error{Kind: helperapi.KindUnavailable, Message: "another change is under way"}
	}
	// A caller that hangs up does not leave a change half done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	observed, err := s.network.Apply(ctx, want)
	if err != nil {
		return nil, err
	}
	s.log.Info("changed network", append(caller(r), zap.Int("services", len(want.Services)),
		zap.Stringer("service_network", want.Bridge.V4), zap.String("egress", string(want.Egress)))...)
	return observed, nil
}

func (s *Server) getNetwork(ctx context.Context, _ *http.Request) (any, error) {
	return s.network.Observe(ctx)
}

func (s *Server) getHealth(context.Context, *http.Request) (any, error) { return s.cfg.Health, nil }

// refuse answers with an error, and writes down who was refused what. What the
// kernel said stays in the log.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var known *helperapi.Error
	if !errors.As(err, &known) {
		known = &helperapi.Error{Kind: helperapi.KindInternal, Message: "the helper could not do it; its log says why"}
	}
	out := &helperapi.Error{Kind: known.Kind, Message: known.Message}
	s.log.Warn("refused request", append(caller(r), zap.String("method", shorten(r.Method)), zap.String("path", shorten(r.URL.Path)),
		zap.String("kind", string(known.Kind)), zap.String("reason", shorten(err.Error())))...)
	s.answer(w, status(known.Kind), out)
}

func caller(r *http.Request) []zap.Field {
	peer, _ := unixsock.PeerFrom(r.Context())
	return []zap.Field{zap.Uint32("uid", peer.UID), zap.Int32("pid", peer.PID)}
}

// shorten keeps what callers choose from filling the log.
func shorten(text string) string {
	const limit = 500
	if len(text) > limit {
		return text[:limit] + "..."
	}
	return text
}

func (s *Server) answer(w http.ResponseWriter, code int, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		s.log.Error("encode answer", zap.Error(err))
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if _, err := w.Write(raw); err != nil {
		s.log.Debug("write answer", zap.Error(err))
	}
}

func status(kind helperapi.Kind) int {
	switch kind {
	case helperapi.KindInvalid:
		return http.StatusBadRequest
	case helperapi.KindDenied:
		return http.StatusForbidden
	case helperapi.KindConflict:
		return http.StatusConflict
	case helperapi.KindUnavailable:
		return http.StatusServiceUnavailable
	case helperapi.KindUnknownOutcome:
		return http.StatusGatewayTimeout
	case helperapi.KindInternal:
	}
	return http.StatusInternalServerError
}
