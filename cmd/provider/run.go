package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"leasehold/internal/client"
	"leasehold/internal/lease"
	"leasehold/internal/observe"
	"leasehold/internal/provider"
)

const (
	// kubelet's longest pause between two tries of a mount is 2m2s, and then the try itself takes a moment.
	longestPause = 2*time.Minute + 30*time.Second

	// kubelet gives a pod 30 s to end by default; the two come one after the other, and the first may take 2 s more.
	stopTimeout   = 10 * time.Second
	settleTimeout = 10 * time.Second
)

// run builds the provider from the bottom up and lets it work until ctx ends.
func run(ctx context.Context, c config, log *slog.Logger) error {
	var keeper *lease.Keeper
	var standby atomic.Bool
	metrics := observe.NewMetrics(observe.Version(), func() observe.Held { return heldOf(volumesOf(keeper.Status())) }, standby.Load)

	client.ClearEnvironment()
	c.Client.UserAgent = "leasehold/" + observe.Version()
	c.Client.Allowed = c.Operator.AddressAllowed
	c.Client.Observe = metrics.VaultRequest
	pool, err := client.NewPool(c.Client)
	if err != nil {
		return err
	}
	defer pool.Close()
	keeping := lease.Config{
		Pool:          pool,
		AbandonAfter:  c.AbandonAfter,
		SettleTimeout: settleTimeout,
		Publishes:     c.Publish,
		RequestTokens: c.TokenRequests,
		Log:           log,
		Stale:         metrics.Stale,
		FromMemory:    metrics.FromMemory,
		Unrevocable:   metrics.Unrevocable,
		JournalFailed: metrics.JournalError,
		Released:      metrics.Release,
		Renewed:       metrics.Renewal,
		Replaced:      metrics.Replacement,
	}
	watch := func(context.Context) {}
	if c.NodeName != "" {
		p, err := newPods(c, log, func() { keeper.Wake() })
		if err != nil {
			return err
		}
		keeping.Pods, watch = p, p.watch.Run
	}
	keeper = lease.NewKeeper(keeping)
	serving := provider.Config{
		Keeper:       keeper,
		Operator:     c.Operator,
		MountTimeout: c.MountTimeout,
		StopTimeout:  stopTimeout,
		Version:      observe.Version(),
		Log:          log,
		Mounted:      metrics.Mount,
	}
	if c.Publish {
		serving.Publisher = provider.NewPublisher(c.PodsDir)
	}
	server := provider.NewServer(serving)

	lock, err := lease.NewLock(c.StateDir, c.ProviderName)
	if err != nil {
		return stateError(err)
	}
	i := &instance{
		lock: lock, server: server, keeper: keeper, dir: c.ProvidersDir, name: c.ProviderName, stateDir: c.StateDir,
		journalOnDisk: c.JournalOnDisk, standby: &standby, log: log,
	}

	var listen net.ListenConfig
	web, err := listen.Listen(ctx, "tcp", c.HTTPAddr)
	if err != nil {
		return fmt.Errorf("-http-addr: %w", err)
	}
	if err := i.arrive(); err != nil {
		return errors.Join(err, web.Close())
	}
	log.Info("leasehold provider", "version", observe.Version(), "name", c.ProviderName, "node", c.NodeName, "http", web.Addr().String(),
		"journal", journalDir(c.StateDir, c.ProviderName), "publish", c.Publish, "token_requests", c.TokenRequests,
		observe.KeyVault, c.Operator.Vault.Address, "namespace", c.Operator.Vault.Namespace, "mount", c.Operator.Vault.AuthPath,
		"audience", c.Operator.Vault.Audience, "allowed_vault_addrs", c.Operator.Addresses, "tls_dir", c.Operator.TLSDirectory)

	sayWhatIsOff(c, log)

	// Health, metrics and the watch over the pods are there before the first call and until the last request to Vault has
	// been answered. A standby watches, too: it knows the pods at once when it takes over.
	group, groupCtx := errgroup.WithContext(ctx)
	lived, lifeEnded := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		defer lifeEnded()
		return i.live(groupCtx)
	})
	group.Go(func() error {
		return serveHTTP(lived, web, observe.NewHandler(i.ready, metrics.Handler()))
	})
	group.Go(func() error {
		watch(lived)
		return nil
	})
	err = group.Wait()
	log.Info("ended", observe.KeyError, err)
	return err
}

// sayWhatIsOff tells what the settings leave undone: most of it shows only when credentials end.
func sayWhatIsOff(c config, log *slog.Logger) {
	if c.NodeName == "" {
		log.Warn("pods' ends are not noticed, for -node-name is not set: what volumes hold is renewed, whether their pod lives or not, " +
			"until the Vault token ends for good, which one with a token_period never does; and no Event tells a pod's owner anything")
	}
	if !c.Publish {
		log.Info("running pods get new credentials by the driver's polls alone, for -publish is off")
	} else if _, err := os.Stat(c.PodsDir); err != nil {
		log.Warn("running pods get new credentials by the driver's polls alone, for -pods-dir cannot be seen", observe.KeyError, err)
	}
	if !c.TokenRequests {
		log.Info("a new login takes a service account token that the driver brings, at a mount or a poll, for -token-requests is off")
	}
	if c.JournalOnDisk {
		log.Warn("-journal-on-disk: whoever reads the disk of the journal can use the Vault tokens of this node's pods while they last",
			"journal", journalDir(c.StateDir, c.ProviderName))
	}
	if c.AbandonAfter < longestPause {
		log.Warn("-abandon-after is shorter than kubelet's longest pause between two tries: a retry may log in anew and make another user",
			"abandon_after", c.AbandonAfter, "longest_pause", longestPause)
	}
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
