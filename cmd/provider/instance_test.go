package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/lease"
	"leasehold/internal/provider"
	"leasehold/internal/spec"
)

// socketOf returns what tells one instance's socket from another's.
func socketOf(t *testing.T, dir string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(provider.SocketPath(dir+"/providers", "vault"))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// wantStandby checks what an instance says of itself.
func wantStandby(t *testing.T, r *running, want bool) {
	t.Helper()
	word, figure := "ok\n", 0
	if want {
		word, figure = "ok: standby\n", 1
	}
	// The check of one that answers goes through the socket, which is for root only.
	if status, body := get(t, r.web+"/readyz"); (want || os.Getuid() == 0) && (status != http.StatusOK || body != word) {
		t.Errorf("/readyz: got %d %q, want 200 %q", status, body, word)
	}
	metric := fmt.Sprintf("\nleasehold_standby %d\n", figure)
	if _, figures := get(t, r.web+"/metrics"); !strings.Contains(figures, metric) {
		t.Errorf("/metrics: got no %q", metric)
	}
}

// An update starts the new instance while the old one answers, waits until it is ready, and then ends the old one.
func TestStandbyTakesOver(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir, "")
	first.await(t, "serving")
	wantStandby(t, first, false)
	old := socketOf(t, dir)
	told, err := os.Stat(statusSocket(dir+"/state", "vault"))
	if err != nil {
		t.Fatal(err)
	}

	second := start(t, dir, "")
	record := second.await(t, "standby: another instance holds the lock")
	if lock, holder := record["lock"], fmt.Sprint(record["holder"]); lock != dir+"/state/vault.lock" ||
		!strings.HasPrefix(holder, fmt.Sprintf("pid %d on ", os.Getpid())) {
		t.Errorf("standby: got lock %v of %v, want %s/state/vault.lock of this process", lock, holder, dir)
	}
	wantStandby(t, second, true)
	wantStandby(t, first, false)
	if now, err := os.Stat(statusSocket(dir+"/state", "vault")); err != nil || !os.SameFile(told, now) {
		t.Errorf("the standby put its socket of \"provider status\" in the place of the one that answers (%v)", err)
	}
	if !os.SameFile(old, socketOf(t, dir)) {
		t.Fatal("the standby put its socket in the place of the one that answers")
	}

	first.end(t)
	second.await(t, "took over")
	second.await(t, "serving")
	wantStandby(t, second, false)
	if os.SameFile(old, socketOf(t, dir)) {
		t.Error("the socket is still the one of the instance that has ended")
	}
	if status, _, stderr := ask(t, "-state-dir="+dir+"/state"); status != 0 {
		t.Errorf("provider status, after the handover: got exit status %d, %q, want 0", status, stderr)
	}
	second.end(t)
	last := start(t, dir, "")
	last.await(t, "serving") // the lock was let go of at the end
	last.end(t)
}

// An update that lets no instance have a journal stops before it has ended the one that answers: the new one is no standby
// then, and never ready.
func TestNoStandbyWithoutAJournal(t *testing.T) {
	dir := t.TempDir()
	lock, err := lease.NewLock(dir, "vault")
	if err != nil {
		t.Fatal(err)
	}
	if ours, err := lock.Try(); !ours || err != nil { // one of a version that had no journal answers
		t.Fatalf("the lock: got %v, %v", ours, err)
	}
	defer func() { _ = lock.Release() }()
	if err := os.WriteFile(journalDir(dir, "vault"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := parse("-http-addr=127.0.0.1:0 -journal-on-disk -providers-dir=" + t.TempDir() + " -state-dir=" + dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience) // a standby ends without an error
	defer cancel()
	const want = "the provider does not start without a journal that it can write to"
	if err := run(ctx, c, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one with %q", err, want)
	}
}

func TestStandbyIsToldToEnd(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir, "")
	first.await(t, "serving")
	old := socketOf(t, dir)
	second := start(t, dir, "")
	second.await(t, "standby: another instance holds the lock")
	second.end(t)
	if !os.SameFile(old, socketOf(t, dir)) {
		t.Error("the standby touched the socket of the one that answers")
	}
	wantStandby(t, first, false)
	first.end(t)
}

// Providers of two names have nothing to do with each other, though they share the directories.
func TestOtherNameIsNoStandby(t *testing.T) {
	dir := t.TempDir()
	vault, other := start(t, dir, ""), start(t, dir, "-provider-name=other")
	vault.await(t, "serving")
	other.await(t, "serving")
	other.end(t)
	vault.end(t)
}

// What was asked of Vault goes into the journal before another instance may read that: else the answer would be known to
// nobody, and the next Mount would make a second login.
func TestLockIsKeptUntilVaultHasAnswered(t *testing.T) {
	dir := t.TempDir()
	vault := vaulttest.New(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	vault.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "auth/kubernetes/login") {
			close(asked)
			<-answer
		}
		return false
	})
	i := newInstance(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- i.live(ctx) }()
	i.await(t, "serving")

	order := spec.Mount{
		Class:  spec.Class{Vault: vault.Vault("app"), Lifecycle: spec.Lifecycle{RenewAt: 0.67}},
		Pod:    spec.Pod{Namespace: "shop", Name: "cart", UID: "u-1", ServiceAccount: "app", Token: vault.Signer.Token(vaulttest.Claims{})},
		Volume: "/pods/cart",
	}
	volume, err := i.keeper.Open(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	mount, giveUp := context.WithCancel(t.Context())
	go func() {
		<-asked
		giveUp()
	}()
	if _, err := volume.Holding(mount); err == nil {
		t.Fatal("got no error from a Mount that ended before its login")
	}
	volume.Close()

	cancel()
	i.await(t, "all calls have been answered")
	next, err := lease.NewLock(dir, "vault")
	if err != nil {
		t.Fatal(err)
	}
	if free, err := next.Try(); free || err != nil {
		t.Errorf("the lock while Vault has not answered: got free %v, %v; want it taken", free, err)
	}
	close(answer)
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the instance did not end though Vault has answered")
	}
	if free, err := next.Try(); !free || err != nil {
		t.Errorf("the lock after the end: got free %v, %v; want it free", free, err)
	}
	defer func() { _ = next.Release() }()

	successor := newInstance(t, dir)
	if err := successor.keeper.Resume(journalDir(dir, "vault"), true); err != nil {
		t.Fatal(err)
	}
	if held := successor.keeper.Status(); len(held) != 1 || len(held[0].Items) != 1 || held[0].Items[0].Kind != "token" {
		t.Errorf("the successor knows of %+v, want the late token", held)
	}
}

// alone is an instance without the rest of the provider. Its log can be awaited.
type alone struct {
	*instance
	*journal
}

// newInstance makes an instance with a keeper of its own, whose state is in dir.
func newInstance(t *testing.T, dir string) alone {
	t.Helper()
	pool, err := client.NewPool(client.Config{Timeout: patience, MaxInFlight: 8, MaxTransports: 8, MaxAnswer: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	logs, write := io.Pipe()
	t.Cleanup(func() { _ = write.Close() })
	log := slog.New(slog.NewJSONHandler(write, nil))
	keeper := lease.NewKeeper(lease.Config{
		Pool: pool, AbandonAfter: time.Minute, SettleTimeout: patience, Log: log,
		Stale: func() {}, FromMemory: func() {}, Unrevocable: func() {}, JournalFailed: func() {},
		Released: func(string) {}, Renewed: func(string, string) {}, Replaced: func(string) {},
	})
	lock, err := lease.NewLock(dir, "vault")
	if err != nil {
		t.Fatal(err)
	}
	server := provider.NewServer(provider.Config{
		Keeper: keeper, MountTimeout: patience, StopTimeout: patience, Log: log, Mounted: func(string, time.Duration) {},
	})
	return alone{&instance{
		lock: lock, server: server, keeper: keeper, dir: t.TempDir(), name: "vault", stateDir: dir, journalOnDisk: true,
		standby: new(atomic.Bool), log: log,
	}, follow(logs)}
}
