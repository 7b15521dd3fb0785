// Package control is how the command line talks to a running manager: HTTP on
// a unix socket, for root and the manager's own user only.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"honeysens.org/dockersensor/shared/logging"
	"honeysens.org/dockersensor/shared/unixsock"
)

const (
	pathStatus   = "/v1/status"
	pathLogLevel = "/v1/log-level"
	pathPoll     = "/v1/poll"

	// maxAnswer bounds an answer, in bytes; a status with 250 services, or a list
	// of MaxListed events, stays far below.
	maxAnswer = 4 << 20
	maxLevel  = 16
	timeout   = 10 * time.Second
)

// Sensor is what the command line looks at and steers.
type Sensor interface {
	Status(ctx context.Context) Status
	// Poll asks the server now instead of at the next interval.
	Poll()
	// Events lists at most MaxListed events of the quarantine.
	Events(ctx context.Context) (EventList, error)
	// RetryEvents returns how many events go to the server again.
	RetryEvents(ctx context.Context, retry Retry) (int, error)
	// SelfTest visits all honeypots as an attacker would, tells each finding, and
	// whether all is good.
	SelfTest(ctx context.Context, tell func(TestFinding)) bool
	// OrderUpdate does what the operator wants of updates.
	OrderUpdate(order UpdateOrder) error
}

// Server answers the command line.
type Server struct {
	sensor Sensor
	level  zap.AtomicLevel
	log    *zap.Logger
}

// NewServer returns a server for the sensor that steers level.
func NewServer(sensor Sensor, level zap.AtomicLevel, log *zap.Logger) *Server {
	return &Server{sensor: sensor, level: level, log: log}
}

// Serve answers on the socket file until ctx ends.
func (s *Server) Serve(ctx context.Context, path string) error {
	listener, err := unixsock.Listen(path, 0o660)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return s.serve(ctx, listener, &http.Server{Handler: s.handler(), ConnContext: unixsock.WithPeer, ReadHeaderTimeout: timeout})
}

// serve answers with limits, until ctx ends.
func (s *Server) serve(ctx context.Context, listener net.Listener, server *http.Server) (err error) {
	server.ReadTimeout, server.WriteTimeout, server.IdleTimeout = timeout, timeout, timeout
	server.MaxHeaderBytes = 16 << 10
	server.ErrorLog = zap.NewStdLog(s.log)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = errors.Join(server.Close(), <-done)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathStatus, s.status)
	mux.HandleFunc("GET "+pathMetrics, s.metrics)
	mux.HandleFunc("PUT "+pathLogLevel, s.logLevel)
	mux.HandleFunc("GET "+pathEvents, s.events)
	mux.HandleFunc("POST "+pathRetry, s.retry)
	mux.HandleFunc("POST "+pathUpdate, s.update)
	mux.HandleFunc("POST "+pathSelfTest, s.selfTest)
	mux.HandleFunc("POST "+pathPoll, func(http.ResponseWriter, *http.Request) { s.sensor.Poll() })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, ok := unixsock.PeerFrom(r.Context())
		if !ok || (peer.UID != 0 && int(peer.UID) != os.Getuid()) {
			http.Error(w, "only root and the manager's own user may ask", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	s.answer(w, s.sensor.Status(r.Context()))
}

func (s *Server) answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		s.log.Debug("command line did not take the answer", zap.Error(err))
	}
}

func (s *Server) logLevel(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLevel))
	if err != nil {
		http.Error(w, "the level is too long", http.StatusBadRequest)
		return
	}
	level, err := logging.ParseLevel(string(text))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.level.SetLevel(level)
	s.log.Log(zapcore.InfoLevel, "log level set", zap.Stringer("level", level))
}

// Client asks a running manager.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client for the socket file.
func NewClient(path string) *Client {
	return &Client{path: path, http: unixsock.Client(path, timeout)}
}

// Status returns the manager's state.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var status Status
	if err := c.ask(ctx, http.MethodGet, pathStatus, nil, &status); err != nil {
		return nil, err
	}
	return &status, nil
}

// SetLogLevel changes the level until the manager restarts.
func (c *Client) SetLogLevel(ctx context.Context, level string) error {
	if len(level) > maxLevel {
		return fmt.Errorf("log level %.20q is too long", level)
	}
	_, err := c.do(ctx, http.MethodPut, pathLogLevel, []byte(level))
	return err
}

// Poll has the manager ask the server now.
func (c *Client) Poll(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodPost, pathPoll, nil)
	return err
}

// ask sends a request and reads the answer into a value.
func (c *Client) ask(ctx context.Context, method, path string, body []byte, into any) error {
	answer, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("read the manager's answer: %w", err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := newRequest(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the manager's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the manager refuses: %.1000s", bytes.TrimSpace(answer))
	}
	return answer, nil
}

// explain says what to do about a manager that cannot be asked.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no manager runs at %s: start the sensor, or name the socket of a running one with --control-socket: %w", c.path, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("not allowed to ask the manager at %s: run this as root: %w", c.path, err)
	}
	return fmt.Errorf("ask the manager at %s: %w", c.path, err)
}

func newRequest(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://manager"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask the manager: %w", err)
	}
	return req, nil
}
