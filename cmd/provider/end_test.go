package main

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"leasehold/internal/client/vaulttest"
	"leasehold/internal/lease"
	"leasehold/internal/provider"
	"leasehold/internal/spec"
)

// The keeper ends after the last call: what a call gains until then goes into the journal, and is the next instance's.
func TestKeeperEndsAfterTheCalls(t *testing.T) {
	dir := t.TempDir()
	vault := vaulttest.New(t)
	i := newInstance(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- i.live(ctx) }()
	i.await(t, "serving")

	// A driver that has connected and says nothing keeps the server from ending, as one does whose call is at work. The
	// probe comes after it: when that is answered, both have been let in.
	socket := provider.SocketPath(i.dir, i.name)
	var dialer net.Dialer
	driver, err := dialer.DialContext(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := provider.Probe(t.Context(), socket); err != nil { // it lets in root only
		t.Fatal(err)
	}
	cancel()
	gained := 0
	for limit := time.Now().Add(200 * time.Millisecond); time.Now().Before(limit); gained++ {
		uid := fmt.Sprint("u-", gained)
		volume, err := i.keeper.Open(t.Context(), spec.Mount{
			Class:  spec.Class{Vault: vault.Vault("app"), Lifecycle: spec.Lifecycle{RenewAt: 0.67}},
			Pod:    spec.Pod{Namespace: "shop", Name: "cart", UID: uid, ServiceAccount: "app", Token: vault.Signer.Token(vaulttest.Claims{})},
			Volume: "/pods/" + uid,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := volume.Holding(t.Context()); err != nil {
			t.Fatalf("after %d logins, and before the last call has ended: %v", gained, err)
		}
		volume.Close()
	}
	if err := driver.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the instance did not end though no call is at work")
	}

	successor := newInstance(t, dir)
	ctx, cancel = context.WithCancel(t.Context())
	go func() { ended <- successor.live(ctx) }()
	successor.await(t, "serving")
	held := 0
	for _, v := range successor.keeper.Status() {
		for _, item := range v.Items {
			if item.State == lease.StateHeld {
				held++
			}
		}
	}
	if held != gained {
		t.Errorf("the next instance holds %d tokens, want all %d", held, gained)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
