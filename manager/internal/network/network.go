// Package network asks the helper for the network that the sensor should have,
// and tells what it has. It changes nothing by itself: the manager has no right
// to.
package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"syscall"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/unixsock"
)

// timeout is above what the helper allows itself for one change, which is 60
// seconds.
const timeout = 75 * time.Second

// maxAnswer bounds an answer, in bytes: the state with all services and a
// conflict for every port.
const maxAnswer = 8 << 20

// Config says where the helper is.
type Config struct {
	// Socket is the path of the helper's socket.
	Socket string
}

// Client is a client of the helper. It may be used from several goroutines.
type Client struct {
	socket string
	http   *http.Client
	log    *zap.Logger
}

// New returns a client. The helper need not be there yet.
func New(cfg Config, log *zap.Logger) *Client {
	return &Client{socket: cfg.Socket, http: unixsock.Client(cfg.Socket, timeout), log: log}
}

// Apply asks for a state and returns what came of it. An error of the helper
// is, or wraps, a *helperapi.Error. When the answer did not arrive it is of
// KindUnknownOutcome, when the helper is not there of KindUnavailable.
func (c *Client) Apply(ctx context.Context, want helperapi.Network) (helperapi.Observed, error) {
	body, err := json.Marshal(want)
	if err != nil {
		return helperapi.Observed{}, fmt.Errorf("encode network: %w", err)
	}
	var observed helperapi.Observed
	if err := c.do(ctx, http.MethodPut, helperapi.PathNetwork, body, &observed); err != nil {
		return helperapi.Observed{}, fmt.Errorf("apply network: %w", err)
	}
	c.log.Debug("applied network", zap.Int("services", len(observed.Services)))
	return observed, nil
}

// Observe returns the state as the helper sees it.
func (c *Client) Observe(ctx context.Context) (helperapi.Observed, error) {
	var observed helperapi.Observed
	if err := c.do(ctx, http.MethodGet, helperapi.PathNetwork, nil, &observed); err != nil {
		return helperapi.Observed{}, fmt.Errorf("observe network: %w", err)
	}
	return observed, nil
}

// Health returns what the helper says of itself.
func (c *Client) Health(ctx context.Context) (helperapi.Health, error) {
	var health helperapi.Health
	if err := c.do(ctx, http.MethodGet, helperapi.PathHealth, nil, &health); err != nil {
		return helperapi.Health{}, fmt.Errorf("health of the helper: %w", err)
	}
	return health, nil
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://nethelper"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(method, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return c.explain(method, err)
	}
	if len(raw) > maxAnswer {
		return &helperapi.Error{Kind: helperapi.KindInternal, Message: fmt.Sprintf("the helper's answer has more than %d bytes", maxAnswer)}
	}
	if resp.StatusCode != http.StatusOK {
		return refusal(resp.StatusCode, raw)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return &helperapi.Error{Kind: helperapi.KindInternal, Message: fmt.Sprintf("the helper's answer is no answer: %v", err)}
	}
	return nil
}

// explain gives the failure of a connection a kind, and says what to do.
func (c *Client) explain(method string, err error) error {
	kind, text := helperapi.KindUnavailable, fmt.Sprintf("nethelper at %s did not answer", c.socket)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		text = fmt.Sprintf("nethelper is not running at %s", c.socket)
	case errors.Is(err, fs.ErrPermission):
		kind = helperapi.KindDenied
		text = fmt.Sprintf("this user may not use %s", c.socket)
	case method == http.MethodPut:
		kind = helperapi.KindUnknownOutcome
	}
	return fmt.Errorf("%w (%w)", &helperapi.Error{Kind: kind, Message: text}, err)
}

func refusal(status int, raw []byte) error {
	var refused helperapi.Error
	if err := json.Unmarshal(raw, &refused); err != nil || refused.Kind == "" {
		return &helperapi.Error{Kind: helperapi.KindInternal, Message: fmt.Sprintf("the helper answered with status %d and no reason", status)}
	}
	return &refused
}
