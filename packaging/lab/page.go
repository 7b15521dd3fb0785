package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"
)

// pageCommand brings the page of the lab's server, which has a network of its
// own, to this machine.
func pageCommand() *cli.Command {
	return &cli.Command{
		Name: "page", Usage: "show the page of the lab's server on this machine until Ctrl-C",
		Flags: []cli.Flag{&cli.StringFlag{Name: "listen", Value: "127.0.0.1:8080", Usage: "serve it at `ADDR:PORT`"}},
		Action: func(c *cli.Context) error {
			lab, err := labOf(c)
			if err != nil {
				return err
			}
			socket := filepath.Join(lab.Dir(), "admin.sock")
			conn, err := net.Dial("unix", socket)
			if err != nil {
				return fmt.Errorf("the lab has no server that answers; `make demo` puts one up: %w", err)
			}
			_ = conn.Close()
			listener, err := net.Listen("tcp", c.String("listen"))
			if err != nil {
				return fmt.Errorf("show the page: %w", err)
			}
			fmt.Fprintf(c.App.Writer, "http://%s/ shows the lab until Ctrl-C\n", listener.Addr())
			return servePage(c.Context, listener, socket)
		},
	}
}

// servePage hands requests on to the server's socket until ctx ends. Only the
// page and what it reads: the rest of the administration stays where it is.
func servePage(ctx context.Context, listener net.Listener, socket string) error {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "lab"})
	proxy.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			http.Error(w, "this is for a look only", http.StatusMethodNotAllowed)
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("show the page: %w", err)
	}
	return nil
}
