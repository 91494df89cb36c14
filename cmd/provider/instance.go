package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"leasehold/internal/lease"
	"leasehold/internal/provider"
)

// instance is one of the provider's instances on a node. There are two while an update replaces the old one: the one with
// the lock answers the driver, and the other stands by until the lock is free.
type instance struct {
	lock    *lease.Lock
	server  *provider.Server
	keeper  *lease.Keeper
	dir     string       // of the providers' sockets
	name    string       // of the provider
	standby *atomic.Bool // another instance answers
	log     *slog.Logger
}

// arrive looks whether another instance is there, so that it is known before anybody asks whether this one is ready.
func (i *instance) arrive() error {
	ours, err := i.lock.Try()
	if err != nil {
		return stateError(err)
	}
	i.standby.Store(!ours)
	return nil
}

// ready tells whether the instance does its part. A standby does, or an update would not go on and the old one would
// never be told to end.
func (i *instance) ready(ctx context.Context) (string, error) {
	if i.standby.Load() {
		return "ok: standby", nil
	}
	return "ok", provider.Probe(ctx, provider.SocketPath(i.dir, i.name))
}

// live waits for the instance's turn, answers the driver until ctx ends, and ends in order.
func (i *instance) live(ctx context.Context) error {
	arrived := time.Now()
	waited := i.standby.Load()
	if waited {
		i.log.Info("standby: another instance holds the lock", "lock", i.lock.Path(), "holder", i.lock.Holder())
	}
	err := i.lock.Take(ctx)
	if ctx.Err() != nil { // told to end before its turn, or just then: the socket stays whose it is
		return i.lock.Release()
	}
	if err != nil {
		return stateError(err)
	}
	socket, err := provider.Listen(i.dir, i.name, i.log)
	if err != nil {
		return errors.Join(err, i.lock.Release())
	}
	i.standby.Store(false)
	if waited {
		i.log.Info("took over", "lock", i.lock.Path(), "after", time.Since(arrived))
	}
	i.log.Info("serving", "socket", provider.SocketPath(i.dir, i.name))

	served, serveEnded := context.WithCancel(context.WithoutCancel(ctx))
	defer serveEnded()
	var keeping sync.WaitGroup
	keeping.Go(func() { i.keeper.Run(served) })
	err = i.server.Serve(ctx, socket)

	// The end comes in order. First no more calls are taken, and those at work are answered. Only then another instance
	// may answer: if two did, one volume's Mounts could be at work in both, and each would make a login and a user. But
	// it need not wait until what failed Mounts have gained is given back, which takes as long as Vault likes: nobody
	// but this instance knows of that, and nobody answers the driver meanwhile.
	err = errors.Join(err, i.lock.Release())
	i.log.Info("let go of the lock: all calls have been answered", "lock", i.lock.Path())
	serveEnded()
	keeping.Wait()
	return err
}

// stateError adds the cure to the reason why there is no lock to be had.
func stateError(err error) error {
	return fmt.Errorf("-state-dir: %w; it must be a directory of the node that this user alone may write to, and the same one for "+
		"all instances", err)
}
