package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"time"

	"leasehold/test/integration/bed"
)

// publish is how long it takes from Vault's answer with replaced credentials until a pod sees them in its volume. A proxy
// before Vault notes when it has handed such an answer on; whoever looks at the volumes is woken by the kernel.
func publish(ctx context.Context, w *world) ([]reading, error) {
	const (
		volumes = 30
		life    = 4 * time.Second // Vault does not prolong it: it is replaced after some 2.5 s
		length  = 22 * time.Second
		role    = "brief"
	)
	s, err := w.stores(ctx)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		s.role(ctx, role, time.Hour, 24*time.Hour), // of the token; and then of its leases
		s.vault.AddDatabaseRole(ctx, "database", role, bed.DatabaseRole{TTL: life, MaxTTL: life}),
	)
	if err != nil {
		return nil, err
	}
	proxy, err := w.bed.StartTrouble(s.vault.Address)
	if err != nil {
		return nil, err
	}
	sent := &answers{at: make(map[string]time.Time)}
	proxy.SetPath("database/creds/"+role, sent.pass)
	var took []float64
	err = w.withNode(ctx, bed.ProviderOptions{VaultAddress: proxy.Address}, func(n *node) error {
		all, err := n.add(volumes, role, credentials(role))
		if err != nil {
			return err
		}
		watch, err := newSwaps()
		if err != nil {
			return err
		}
		defer watch.close()
		for _, v := range all {
			if err := n.mount(ctx, v); err != nil {
				return err
			}
			if err := watch.add(v.Path); err != nil {
				return err
			}
		}
		seen := make(map[string]time.Time) // :: user name -> when a volume showed it
		stop := time.AfterFunc(length, watch.close)
		defer stop.Stop()
		for swap := range watch.seen {
			user, err := os.ReadFile(filepath.Join(swap.dir, "username"))
			if err != nil {
				return err
			}
			if name := string(user); seen[name].IsZero() {
				seen[name] = swap.at
			}
		}
		took = sent.until(seen)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(took) < 2*volumes {
		return nil, fmt.Errorf("only %d replacements in %v", len(took), length)
	}
	return []reading{{1e3 * percentile(took, 0.99), []string{
		note("%d replacements in %d volumes; p50 %.1f ms, most %.1f ms", len(took), volumes, 1e3*median(took), 1e3*percentile(took, 1)),
	}}}, nil
}

// answers notes when an answer with a database user was handed on.
type answers struct {
	mu sync.Mutex
	at map[string]time.Time // by user name
}

// pass hands a request on to Vault, and its answer back.
func (a *answers) pass(w http.ResponseWriter, r *http.Request, pass http.Handler) {
	kept := httptest.NewRecorder()
	pass.ServeHTTP(kept, r)
	var answer struct{ Data struct{ Username string } }
	_ = json.Unmarshal(kept.Body.Bytes(), &answer) // an answer without a user is none that we wait for
	now := time.Now()
	for name, values := range kept.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(kept.Code)
	_, _ = w.Write(kept.Body.Bytes())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at[answer.Data.Username] = now
}

// until returns how long it took to see each user who was seen, in seconds.
func (a *answers) until(seen map[string]time.Time) []float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	var took []float64
	for user, at := range seen {
		if sent, known := a.at[user]; known {
			took = append(took, at.Sub(sent).Seconds())
		}
	}
	return took
}
