package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"leasehold/internal/provider"
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

	second := start(t, dir, "")
	record := second.await(t, "standby: another instance holds the lock")
	if lock, holder := record["lock"], fmt.Sprint(record["holder"]); lock != dir+"/state/vault.lock" ||
		!strings.HasPrefix(holder, fmt.Sprintf("pid %d on ", os.Getpid())) {
		t.Errorf("standby: got lock %v of %v, want %s/state/vault.lock of this process", lock, holder, dir)
	}
	wantStandby(t, second, true)
	wantStandby(t, first, false)
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
	second.end(t)
	last := start(t, dir, "")
	last.await(t, "serving") // the lock was let go of at the end
	last.end(t)
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
