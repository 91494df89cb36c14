package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"leasehold/internal/observe"
	"leasehold/internal/render"
	"leasehold/internal/webhook"
)

// run builds the webhook from the bottom up and lets it work until ctx ends.
func run(ctx context.Context, c config, log *slog.Logger) error {
	access, err := apiAccess(c.Kubeconfig)
	if err != nil {
		return err
	}
	access.UserAgent = "leasehold-webhook/" + observe.Version()
	api, err := webhook.NewAPI(access)
	if err != nil {
		return err
	}
	certificates, err := webhook.NewCertificates(webhook.CertificatesConfig{
		API: api, Namespace: c.Namespace, Service: c.Service, Secret: c.Secret, Mutating: c.Mutating, Validating: c.Validating,
		Life: c.CertificateLife, Log: log,
	})
	if err != nil {
		return err
	}
	metrics := observe.NewWebhookMetrics(observe.Version(), certificates.End)
	namespaces := webhook.NewNamespaces(api, log)
	renderer := render.New()
	c.Policy.CheckTemplate, c.Operator.CheckTemplate = renderer.Check, renderer.Check
	handler, err := webhook.NewHandler(webhook.Config{
		API: api, Namespaces: namespaces, Policy: c.Policy, Operator: c.Operator, Grace: c.ClassGrace, Log: log,
		Admitted: metrics.Admission, ClassMade: metrics.ClassMade,
	})
	if err != nil {
		return err
	}
	// A leader that is gone is replaced after three of its turns.
	leader, err := webhook.NewLeader(api, c.Namespace, c.Lease, c.Identity, 3*webhook.SweepEvery(c.ClassGrace))
	if err != nil {
		return err
	}
	sweep, err := webhook.NewSweep(webhook.SweepConfig{
		API: api, Leader: leader, Grace: c.ClassGrace, Log: log, Swept: metrics.ClassSwept, Failed: metrics.SweepFailed,
	})
	if err != nil {
		return err
	}
	server, err := webhook.NewServer(handler, certificates, c.Drain, log)
	if err != nil {
		return err
	}

	var listen net.ListenConfig
	web, err := listen.Listen(ctx, "tcp", c.HTTPAddr)
	if err != nil {
		return fmt.Errorf("-http-addr: %w", err)
	}
	reviews, err := listen.Listen(ctx, "tcp", c.HTTPSAddr)
	if err != nil {
		return errors.Join(fmt.Errorf("-https-addr: %w", err), web.Close())
	}
	log.Info("leasehold webhook", "version", observe.Version(), "https", reviews.Addr().String(), "http", web.Addr().String(),
		"namespace", c.Namespace, "identity", c.Identity, "service", c.Service, "provider", c.Policy.ProviderName,
		observe.KeyVault, c.Policy.Vault.Address, "allowed_vault_addrs", c.Policy.Addresses, "default_role", c.Policy.DefaultRole,
		"default_template", c.Policy.DefaultTemplate, "class_grace", c.ClassGrace, "certificate_life", c.CertificateLife)

	// Health, metrics and the certificates are there until the last admission has been answered.
	group, groupCtx := errgroup.WithContext(ctx)
	lived, lifeEnded := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		defer lifeEnded()
		return server.Serve(groupCtx, reviews)
	})
	group.Go(func() error {
		ready := func(context.Context) (string, error) {
			if groupCtx.Err() != nil {
				return "", errors.New("the webhook is ending")
			}
			return "ok", certificates.Ready()
		}
		return serveHTTP(lived, web, observe.NewHandler(ready, metrics.Handler()))
	})
	for _, work := range []func(context.Context){certificates.Run, namespaces.Run} {
		group.Go(func() error {
			work(lived)
			return nil
		})
	}
	group.Go(func() error {
		sweep.Run(groupCtx)
		return nil
	})
	err = group.Wait()
	log.Info("ended", observe.KeyError, err)
	return err
}

// apiAccess tells how to reach the API server: as the file says or, without one, as the service account of this pod.
func apiAccess(kubeconfig string) (*rest.Config, error) {
	if kubeconfig != "" {
		access, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("-kubeconfig: %w", err)
		}
		return access, nil
	}
	access, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("the webhook needs access to the API server: %w; mount the token of a service account, or give -kubeconfig", err)
	}
	// The API server is an address of the cluster itself: no proxy of the environment leads there.
	access.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	return access, nil
}

// serveHTTP serves until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve at %s: %w", l.Addr(), err)
	}
	return nil
}
