package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"leasehold/internal/podwatch/podwatchtest"
	"leasehold/test/integration/bed"
)

// The lives of what Vault gives. They are short, so that renewals and replacements are always on their way; a lease
// cannot be replaced with a reason before its age is maximum - TTL, when the first renewal comes back short.
const (
	leaseTTL, leaseMax = 12 * time.Second, 26 * time.Second
	tokenTTL, tokenMax = 15 * time.Second, 40 * time.Second
	revokeGrace        = 3 * time.Second
	abandonAfter       = 10 * time.Minute // longer than all kills take: a failed mount is given back with its pod

	node = "node"
)

// scene is all that there is.
type scene struct {
	bed      *bed.Bed
	postgres *bed.Postgres
	vault    *bed.Vault
	signer   *bed.Signer
	api      *podwatchtest.Server
	driver   *bed.Driver
	options  bed.ProviderOptions
	journal  string // directory of the journal

	log     *recorder
	trigger *trigger
	watch   *watch

	random *rand.Rand // of the killer; pods have their own
	seed   uint64

	provider *bed.Provider
	launched atomic.Int64 // when, in ns since 1970; 0 while there is none
	lastKill time.Time
	steps    map[string]int     // :: kind of moment -> kills at one
	late     atomic.Int64       // logins with a volume's files that had ended while no instance lived for long
	living   sync.WaitGroup     // pods
	calm     context.CancelFunc // ends the short lives of pods
	settle   context.CancelFunc // ends the long ones

	mu       sync.Mutex
	volumes  []*volume
	troubles []string // what pods met that must not be
	blamed   string   // the first volume that something is wrong with
}

// roles are the Vault roles of a pod's first and second volume.
var roles = []string{"first", "second"}

// open starts everything but the provider.
func open(ctx context.Context, seed uint64) (_ *scene, err error) {
	b, err := bed.Open()
	if err != nil {
		return nil, err
	}
	s := &scene{bed: b, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), api: podwatchtest.New(), steps: make(map[string]int)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.trigger = &trigger{}
	s.log = newRecorder(seed, s.trigger, func() (string, error) { return readJournal(s.journal) })
	if s.watch, err = newWatch(s.trigger); err != nil {
		return nil, err
	}
	if err := s.startServers(ctx); err != nil {
		return nil, err
	}
	proxy, err := b.StartTrouble(s.vault.Address)
	if err != nil {
		return nil, err
	}
	proxy.Set(s.log.behave)

	dir, state, kubeconfig := filepath.Join(b.Dir, "providers"), filepath.Join(b.Dir, "state"), filepath.Join(b.Dir, "kubeconfig")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(state, 0o700), s.api.Kubeconfig(kubeconfig)); err != nil {
		return nil, err
	}
	if err := bed.MountTmpfs(state, "size=16m,mode=700"); err != nil {
		return nil, err
	}
	s.journal = filepath.Join(state, "vault")
	s.options = bed.ProviderOptions{
		VaultAddress: proxy.Address, Dir: dir, StateDir: state,
		Args: []string{"--node-name=" + node, "--kubeconfig=" + kubeconfig, "--abandon-after=" + abandonAfter.String()},
	}
	s.driver, err = b.NewDriver(&bed.Provider{Dir: dir}, s.signer)
	return s, err
}

// startServers starts PostgreSQL and Vault, and sets Vault up.
func (s *scene) startServers(ctx context.Context) (err error) {
	if s.postgres, err = s.bed.StartPostgres(ctx); err != nil {
		return err
	}
	if s.vault, err = s.bed.StartVault(ctx, bed.VaultOptions{InMemory: true}); err != nil {
		return err
	}
	if s.signer, err = bed.NewSigner(bed.ES256); err != nil {
		return err
	}
	v := s.vault
	err = errors.Join(
		v.EnableJWT(ctx, "kubernetes", s.signer),
		v.EnableDatabase(ctx, "database", s.postgres),
		v.EnableKV(ctx, "kv", 1),
		v.PutKV1(ctx, "kv", "app", map[string]any{"word": "xyzzy"}),
		v.Policy(ctx, "app", bed.MayRead("database/creds/*", "kv/*")),
	)
	for _, role := range roles {
		err = errors.Join(err,
			v.AddDatabaseRole(ctx, "database", role, bed.DatabaseRole{TTL: leaseTTL, MaxTTL: leaseMax}),
			v.JWTRole(ctx, "kubernetes", role, bed.Role{
				ServiceAccounts: []string{"apps/db-app"}, Policies: []string{"app"}, TTL: tokenTTL, MaxTTL: tokenMax,
			}))
	}
	return err
}

// close ends everything.
func (s *scene) close() error {
	if s.calm != nil {
		s.calm()
		s.settle()
		s.living.Wait()
	}
	if s.watch != nil {
		s.watch.close()
	}
	err := s.bed.Close()
	s.api.Close()
	return err
}

// trouble notes what must not be.
func (s *scene) trouble(v *volume, err error) {
	s.mu.Lock()
	s.troubles = append(s.troubles, fmt.Sprintf("%s at %s: %v", v.key, time.Now().Format("15:04:05.000"), err))
	s.mu.Unlock()
	s.blame(v.key)
}

// blame notes a volume, by its key, that something is wrong with.
func (s *scene) blame(volume string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blamed == "" {
		s.blamed = volume
	}
}

// explain prints what happened to the first volume that something is wrong with.
func (s *scene) explain() {
	if s.blamed == "" {
		return
	}
	fmt.Fprintf(os.Stderr, "crash: requests for %s:\n", s.blamed)
	for _, line := range s.log.storyOf(s.blamed) {
		fmt.Fprintln(os.Stderr, "\t"+line)
	}
}
