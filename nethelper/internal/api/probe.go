package api

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
)

// postProbe connects as an attacker would. It changes nothing for anybody else,
// so it does not wait for changes.
func (s *Server) postProbe(ctx context.Context, r *http.Request) (any, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, &helperapi.Error{Kind: helperapi.KindInvalid, Message: fmt.Sprintf("read body: %v", err)}
	}
	want, err := helperapi.DecodeProbe(body)
	if err != nil {
		return nil, err
	}
	result, err := s.network.Probe(ctx, want)
	if err != nil {
		return nil, err
	}
	s.log.Info("probed", append(caller(r), zap.Stringer("port", want.Port), zap.Stringer("source", want.Source),
		zap.String("outcome", string(result.Outcome)))...)
	return result, nil
}
