package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"leasehold/internal/lease"
	"leasehold/internal/observe"
	"leasehold/internal/provider"
)

// instance is one of the provider's instances on a node. There are two while an update replaces the old one: the one with
// the lock answers the driver, and the other stands by until the lock is free.
type instance struct {
	lock          *lease.Lock
	server        *provider.Server
	keeper        *lease.Keeper
	dir           string // of the providers' sockets
	name          string // of the provider
	stateDir      string // of lock and journal
	journalOnDisk bool
	standby       *atomic.Bool // another instance answers
	log           *slog.Logger
}

// journalDir is where the instance that answers keeps what it holds.
func journalDir(stateDir, name string) string { return filepath.Join(stateDir, name) }

// arrive looks whether another instance is there, so that it is known before anybody asks whether this one is ready. One
// that cannot have a journal fails here: were it ready as a standby, an update would end the instance that answers, and
// nobody could take its place.
func (i *instance) arrive() error {
	if err := lease.CheckJournal(journalDir(i.stateDir, i.name), i.journalOnDisk); err != nil {
		return journalError(err)
	}
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
	// The end comes in order. First no more calls are taken, and those at work are answered. Then what was asked of Vault is
	// awaited, for its answers go into the journal. Only then another instance may read that, and answer: if two were at
	// work, one volume's Mounts could be in both, and each would make a login and a user; and of an answer that came later
	// the other one would not know.
	err = i.answer(ctx, arrived, waited)
	return errors.Join(err, i.lock.Release())
}

// answer carries on where the instance before ended, and answers the driver until ctx ends. The lock must be ours: with it
// go the journal, the sockets and the volumes.
func (i *instance) answer(ctx context.Context, arrived time.Time, waited bool) error {
	if err := i.keeper.Resume(journalDir(i.stateDir, i.name), i.journalOnDisk); err != nil {
		return journalError(err)
	}
	status, err := listenStatus(ctx, statusSocket(i.stateDir, i.name))
	if err != nil {
		return fmt.Errorf("bind the socket of \"provider status\": %w", err)
	}
	socket, err := provider.Listen(i.dir, i.name, i.log)
	if err != nil {
		return errors.Join(err, status.Close())
	}
	i.standby.Store(false)
	if waited {
		i.log.Info("took over", "lock", i.lock.Path(), "after", time.Since(arrived))
	}
	i.log.Info("serving", "socket", provider.SocketPath(i.dir, i.name), "volumes", i.keeper.Held())

	served, serveEnded := context.WithCancel(context.WithoutCancel(ctx))
	defer serveEnded()
	var keeping sync.WaitGroup
	keeping.Go(func() { i.keeper.Run(served, i.server.Refill) })
	keeping.Go(func() {
		if err := serveHTTP(served, status, statusHandler(i.keeper.Status)); err != nil {
			i.log.Error("\"provider status\" has no answer until the provider starts anew", observe.KeyError, err)
		}
	})
	err = i.server.Serve(ctx, socket)
	i.log.Info("all calls have been answered")
	serveEnded()
	keeping.Wait()
	i.log.Info("all requests to Vault have been awaited: letting go of the lock", "lock", i.lock.Path())
	return err
}

// journalError adds the cure to the reason why there is no journal to be had.
func journalError(err error) error {
	return fmt.Errorf("-state-dir: %w; the provider does not start without a journal that it can write to: a Vault token that is not "+
		"written down is lost when the provider is killed, and nobody revokes it", err)
}

// stateError adds the cure to the reason why there is no lock to be had.
func stateError(err error) error {
	return fmt.Errorf("-state-dir: %w; it must be a directory of the node that this user alone may write to, and the same one for "+
		"all instances", err)
}
