package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Usage is what can be told to a node.
const Usage = "node start|stop|kill|restart COMPONENT, such as vault or kubelet"

// serveControl does what is told at the control socket: POST /<component>/<action>. The answer comes when it is done.
func (n *Node) serveControl(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", controlAt)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{component}/{action}", func(w http.ResponseWriter, r *http.Request) {
		if err := n.act(r.Context(), r.PathValue("component"), r.PathValue("action")); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	mux.HandleFunc("POST /load", func(w http.ResponseWriter, r *http.Request) {
		if err := n.load(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// act does one thing to one component, and returns when it is done: after a start it is ready.
func (n *Node) act(ctx context.Context, component, action string) error {
	switch component {
	case "vault":
		return do(ctx, action, n.vault.Start, n.vault.Stop, n.vault.Kill)
	case "postgres":
		return do(ctx, action, n.postgres.Start, n.postgres.Stop, n.postgres.Kill)
	}
	if _, known := n.commands[component]; !known {
		return fmt.Errorf("no component %q: there are vault, postgres, %s", component, strings.Join(slices.Sorted(maps.Keys(n.commands)), ", "))
	}
	return do(ctx, action,
		func(ctx context.Context) error {
			if err := n.startAll(component); err != nil {
				return err
			}
			return n.until(ctx, component, n.readiness(component))
		},
		func() error { return n.end(component, false) },
		func() error { return n.end(component, true) })
}

// readiness tells when a component that was started again does its work.
func (n *Node) readiness(component string) func(context.Context) error {
	switch component {
	case "kube-apiserver", "etcd":
		return n.api.ready
	case "containerd":
		return dial("unix", containerd)
	case "kubelet":
		return healthy("http://127.0.0.1:10248/healthz")
	case "kube-proxy":
		return healthy("http://127.0.0.1:10256/livez")
	default: // the controller-manager and the scheduler answer to their own certificates only: that they run must do
		return func(context.Context) error { return nil }
	}
}

func healthy(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = answer.Body.Close() }()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s: %s", url, answer.Status)
		}
		return nil
	}
}

// do takes an action apart.
func do(ctx context.Context, action string, start func(context.Context) error, stop, kill func() error) error {
	switch action {
	case "start":
		return start(ctx)
	case "stop":
		return stop()
	case "kill":
		return kill()
	case "restart":
		return errors.Join(stop(), start(ctx))
	default:
		return fmt.Errorf("no action %q: there are start, stop, kill, restart", action)
	}
}

// Control tells the node of the namespaces that we are in to do something, and returns when it is done.
func Control(ctx context.Context, path string) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", controlAt)
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node/"+path, http.NoBody)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return errors.New(`there is no node here: run this within the cluster, by "cluster exec"`)
	case err != nil:
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		said, err := io.ReadAll(answer.Body)
		return errors.Join(errors.New(string(bytes.TrimSpace(said))), err)
	}
	return nil
}
