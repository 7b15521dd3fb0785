package api

import (
	"context"
	"net/http"

	"honeysens.org/dockersensor/shared/helperapi"
)

// deleteNetwork lets go of the network for another sensor.
func (s *Server) deleteNetwork(ctx context.Context, r *http.Request) (any, error) {
	select {
	case s.changing <- struct{}{}:
		defer func() { <-s.changing }()
	default:
		return nil, &helperapi.Error{Kind: helperapi.KindUnavailable, Message: "another change is under way"}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	observed, err := s.network.Release(ctx)
	if err != nil {
		return nil, err
	}
	s.log.Info("released network", caller(r)...)
	return observed, nil
}
