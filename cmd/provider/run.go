package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"leasehold/internal/client"
	"leasehold/internal/lease"
	"leasehold/internal/observe"
	"leasehold/internal/provider"
)

const (
	revokeGrace = 10 * time.Minute // connection pools and slow readers follow new files late

	// kubelet's longest pause between two tries of a mount is 2m2s, and then the try itself takes a moment.
	longestPause = 2*time.Minute + 30*time.Second

	// kubelet gives a pod 30 s to end by default; the two come one after the other.
	stopTimeout  = 10 * time.Second
	drainTimeout = 15 * time.Second
)

// run builds the provider from the bottom up and lets it work until ctx ends.
func run(ctx context.Context, c config, logs io.Writer) error {
	log, err := observe.NewLogger(logs, c.LogLevel, c.LogFormat)
	if err != nil {
		return err
	}
	var keeper *lease.Keeper
	var standby atomic.Bool
	metrics := observe.NewMetrics(version(), func() int { return keeper.Held() }, standby.Load)

	client.ClearEnvironment()
	c.Client.UserAgent = "leasehold/" + version()
	c.Client.Allowed = c.Operator.AddressAllowed
	c.Client.Observe = metrics.VaultRequest
	pool, err := client.NewPool(c.Client)
	if err != nil {
		return err
	}
	defer pool.Close()
	keeper = lease.NewKeeper(lease.Config{
		Pool:         pool,
		AbandonAfter: c.AbandonAfter,
		RevokeGrace:  revokeGrace,
		DrainTimeout: drainTimeout,
		Log:          log,
		Stale:        metrics.Stale,
		Unrevocable:  metrics.Unrevocable,
		Released:     metrics.Release,
	})
	server := provider.NewServer(provider.Config{
		Keeper:       keeper,
		Operator:     c.Operator,
		MountTimeout: c.MountTimeout,
		StopTimeout:  stopTimeout,
		Version:      version(),
		Log:          log,
		Mounted:      metrics.Mount,
	})

	lock, err := lease.NewLock(c.StateDir, c.ProviderName)
	if err != nil {
		return stateError(err)
	}
	i := &instance{
		lock: lock, server: server, keeper: keeper, dir: c.ProvidersDir, name: c.ProviderName, standby: &standby, log: log,
	}

	var listen net.ListenConfig
	web, err := listen.Listen(ctx, "tcp", c.HTTPAddr)
	if err != nil {
		return fmt.Errorf("-http-addr: %w", err)
	}
	if err := i.arrive(); err != nil {
		return errors.Join(err, web.Close())
	}
	log.Info("leasehold provider", "version", version(), "name", c.ProviderName, "http", web.Addr().String(),
		observe.KeyVault, c.Operator.Vault.Address, "namespace", c.Operator.Vault.Namespace, "mount", c.Operator.Vault.AuthPath,
		"audience", c.Operator.Vault.Audience, "allowed_vault_addrs", c.Operator.Addresses, "tls_dir", c.Operator.TLSDirectory)

	if c.AbandonAfter < longestPause {
		log.Warn("-abandon-after is shorter than kubelet's longest pause between two tries: a retry may log in anew and make another user",
			"abandon_after", c.AbandonAfter, "longest_pause", longestPause)
	}

	// Health and metrics are there before the first call and until the last token has been given back.
	group, groupCtx := errgroup.WithContext(ctx)
	lived, lifeEnded := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		defer lifeEnded()
		return i.live(groupCtx)
	})
	group.Go(func() error {
		return serveHTTP(lived, web, observe.NewHandler(i.ready, metrics.Handler()))
	})
	err = group.Wait()
	log.Info("ended", observe.KeyError, err)
	return err
}

// serveHTTP serves until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve -http-addr: %w", err)
	}
	return nil
}

// version is what the build knows of itself: the module's version, or the commit that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, modified := "devel", ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision" && len(setting.Value) >= 12:
			revision = setting.Value[:12]
		case setting.Key == "vcs.modified" && setting.Value == "true":
			modified = "+changes"
		}
	}
	return revision + modified
}
