package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/command/server"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/vault"
)

// serve runs the server that the file describes until ctx ends or a listener fails.
func serve(ctx context.Context, file string) (err error) {
	config, err := server.LoadConfigFile(file)
	if err != nil {
		return fmt.Errorf("configuration %q: %w", file, err)
	}
	if len(config.Listeners) == 0 {
		return fmt.Errorf("configuration %q: no listener stanza", file)
	}
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.LevelFromString(config.LogLevel), Output: os.Stderr})
	core, err := newCore(config, logger)
	if err != nil {
		return err
	}
	// Shutdown seals: expiration stops, and nothing writes to the storage any more.
	defer func() { err = errors.Join(err, core.Shutdown()) }()

	failed := make(chan error, len(config.Listeners))
	for _, l := range config.Listeners {
		listener, _, _, err := server.NewListener(l, io.Discard, nil)
		if err != nil {
			return fmt.Errorf("listener %q: %w", l.Address, err)
		}
		s := newServer(core, l, config, logger)
		defer func() { _ = s.Close() }()
		go func() { failed <- s.Serve(listener) }()
		logger.Info("listening", "address", listener.Addr().String(), "tls", !l.TLSDisable)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// newCore makes Vault's core, sealed or not yet initialised, as its storage says.
func newCore(config *server.Config, logger hclog.Logger) (*vault.Core, error) {
	backend, err := storage(config.Storage, logger.Named("storage"))
	if err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		RawConfig:          config,
		Physical:           backend,
		StorageType:        config.Storage.Type,
		RedirectAddr:       config.APIAddr,
		AuditBackends:      audits,
		CredentialBackends: methods,
		LogicalBackends:    engines,
		BuiltinRegistry:    plugins{},
		Logger:             logger,
		LogLevel:           config.LogLevel,
		DisableMlock:       config.DisableMlock,
		DisableCache:       config.DisableCache,
		CacheSize:          config.CacheSize,
		DefaultLeaseTTL:    config.DefaultLeaseTTL,
		MaxLeaseTTL:        config.MaxLeaseTTL,
		ClusterName:        config.ClusterName,
		EnableRaw:          config.EnableRawEndpoint,
	})
	if err != nil {
		return nil, fmt.Errorf("core: %w", err)
	}
	return core, nil
}

// newServer serves the core's API with the stock server's time limits.
func newServer(core *vault.Core, l *configutil.Listener, config *server.Config, logger hclog.Logger) *http.Server {
	return &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core:                  core,
			ListenerConfig:        l,
			DisablePrintableCheck: config.DisablePrintableCheck,
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       5 * time.Minute,
		ErrorLog:          logger.StandardLogger(nil),
	}
}
