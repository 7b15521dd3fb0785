package hsapi

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
)

// Registry is "name:port", by which images are called. The server's registry of
// service images is behind the same host, port and certificate as its API.
func (c *Client) Registry() string {
	ep := c.ep.Load()
	return net.JoinHostPort(ep.name, strconv.Itoa(int(ep.port)))
}

// RegistryTransport carries requests to the server's registry: with the
// client's trust and proxy, to the server's address whatever its name resolves
// to, and to nowhere else. It only reads. The body has to be limited in size
// and time by whoever reads it.
func (c *Client) RegistryTransport() http.RoundTripper { return registryTransport{c} }

type registryTransport struct{ client *Client }

// RoundTrip refuses what is not for the server.
func (r registryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ep := r.client.ep.Load()
	op := "fetch from the registry"
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return nil, fmt.Errorf("%s: method %.20q: it is only read", op, req.Method)
	}
	if req.URL.Scheme != "https" || (req.URL.Host != ep.vhost && req.URL.Host != r.client.Registry()) {
		return nil, fmt.Errorf("%s: %.200q is not the server's registry", op, req.URL.Redacted())
	}
	out := req.Clone(req.Context())
	out.URL.Host, out.Host = ep.address, ep.vhost
	if out.Header.Get("Accept-Encoding") == "" {
		// Digests are over what the registry stores.
		out.Header.Set("Accept-Encoding", "identity")
	}
	response, err := ep.transport.RoundTrip(out)
	if err != nil {
		return nil, r.explain(req.Context(), ep, op, err)
	}
	response.Request = req
	return response, nil
}

func (r registryTransport) explain(ctx context.Context, ep *endpoint, op string, err error) error {
	return r.client.unanswered(ctx, ep, op, err)
}
