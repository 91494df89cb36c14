package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"leasehold/test/integration/bed"
)

const podsPath = "/api/v1/namespaces/" + appsSpace + "/pods"

// release is how long a pod's database user outlives the pod: from when the API server tells of the pod's end until the
// user's row in pg_roles is gone. One half of the pods ends as Jobs' do; the other half is deleted.
func release(ctx context.Context, w *world) ([]reading, error) {
	const pods = 150
	var took []float64
	err := w.withCluster(ctx, func(c *cluster) error {
		n, err := w.newNode(ctx, bed.ProviderOptions{}, c.kubeconfig)
		if err != nil {
			return err
		}
		return errors.Join(func() (err error) {
			took, err = n.releases(ctx, c, pods)
			return err
		}(), n.close())
	})
	if err != nil {
		return nil, err
	}
	return []reading{{1e3 * percentile(took, 0.99), []string{
		note("%d pods, one after the other, the API server's and PostgreSQL's own word; p50 %.0f ms, most %.0f ms",
			pods, 1e3*median(took), 1e3*percentile(took, 1)),
	}}}, nil
}

// releases makes pods with a volume each and ends them one after the other. It returns how long each was outlived.
func (n *node) releases(ctx context.Context, c *cluster, count int) ([]float64, error) {
	all := make([]*volume, count)
	for i := range all {
		pod, err := c.makePod(ctx, n.world.unique("pod"))
		if err != nil {
			return nil, err
		}
		if all[i], err = n.layOut(pod, hourRole, credentials(hourRole)); err != nil {
			return nil, err
		}
	}
	err := inParallel(ctx, atOnce, count, func(ctx context.Context, i int) error { return n.mount(ctx, all[i]) })
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ends := newMoments()
	rows := newMoments()
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	if err := c.watchEnds(ctx, &watching, ends); err != nil {
		return nil, err
	}
	if err := n.stores.watchUsers(ctx, &watching, rows); err != nil {
		return nil, err
	}
	var took []float64
	for i, v := range all {
		user, err := os.ReadFile(filepath.Join(v.Path, "username"))
		if err != nil {
			return nil, err
		}
		if err := c.endPod(ctx, v.Pod.Name, i%2 == 0); err != nil {
			return nil, err
		}
		end, err := ends.wait(ctx, v.Pod.Name)
		if err != nil {
			return nil, fmt.Errorf("the end of pod %s: %w", v.Pod.Name, err)
		}
		gone, err := rows.wait(ctx, string(user))
		if err != nil {
			return nil, fmt.Errorf("the end of the user of pod %s: %w", v.Pod.Name, err)
		}
		took = append(took, gone.Sub(end).Seconds())
	}
	return took, nil
}

// makePod makes a pod on the node, which runs as far as anybody can see.
func (c *cluster) makePod(ctx context.Context, name string) (bed.Pod, error) {
	text, err := c.ask(ctx, http.MethodPost, podsPath, object{
		"metadata": object{"name": name},
		"spec": object{
			"nodeName": nodeName, "serviceAccountName": appAccount, "automountServiceAccountToken": false,
			"containers": []object{{"name": "app", "image": "app"}},
		},
	})
	if err != nil {
		return bed.Pod{}, err
	}
	var made struct{ Metadata struct{ UID string } }
	if err := json.Unmarshal(text, &made); err != nil {
		return bed.Pod{}, err
	}
	_, err = c.ask(ctx, http.MethodPatch, podsPath+"/"+name+"/status", object{"status": object{"phase": "Running"}})
	return bed.Pod{Namespace: appsSpace, Name: name, UID: made.Metadata.UID, ServiceAccount: appAccount}, err
}

// endPod ends a pod as kubelet does when its containers have ended, or takes it away.
func (c *cluster) endPod(ctx context.Context, name string, succeeds bool) (err error) {
	if succeeds {
		_, err = c.ask(ctx, http.MethodPatch, podsPath+"/"+name+"/status", object{"status": object{"phase": "Succeeded"}})
		return err
	}
	_, err = c.ask(ctx, http.MethodDelete, podsPath+"/"+name, object{"gracePeriodSeconds": 0})
	return err
}

// watchEnds notes when the API server tells of a pod's end, by the pod's name.
func (c *cluster) watchEnds(ctx context.Context, watching *sync.WaitGroup, ends *moments) error {
	answer, err := c.send(ctx, http.MethodGet, podsPath+"?watch=true", nil)
	if err != nil {
		return err
	}
	watching.Go(func() {
		defer func() { _ = answer.Body.Close() }()
		for events := json.NewDecoder(answer.Body); ; {
			var event struct {
				Type   string
				Object struct {
					Metadata struct{ Name string }
					Status   struct{ Phase string }
				}
			}
			if err := events.Decode(&event); err != nil {
				ends.fail(fmt.Errorf("the watch of pods: %w", err))
				return
			}
			if event.Type == "DELETED" || event.Object.Status.Phase == "Succeeded" {
				ends.note(event.Object.Metadata.Name, time.Now())
			}
		}
	})
	return nil
}

// watchUsers notes when a user of PostgreSQL is gone that there was when it was called. It looks every two milliseconds.
func (s *stores) watchUsers(ctx context.Context, watching *sync.WaitGroup, rows *moments) error {
	config, err := pgx.ParseConfig("postgres://" + s.postgres.Address + "/postgres?sslmode=disable")
	if err != nil {
		return err
	}
	config.User, config.Password = "postgres", s.postgres.Password
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	there, err := users(ctx, conn)
	if err != nil {
		return errors.Join(err, conn.Close(ctx))
	}
	watching.Go(func() {
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		for {
			now, err := users(ctx, conn)
			if err := errors.Join(err, pause(ctx, 2*time.Millisecond)); err != nil {
				rows.fail(fmt.Errorf("the look at pg_roles: %w", err))
				return
			}
			at := time.Now()
			for name := range there {
				if !now[name] {
					rows.note(name, at)
				}
			}
			there = now
		}
	})
	return nil
}

// users are the users that Vault has made.
func users(ctx context.Context, conn *pgx.Conn) (map[string]bool, error) {
	rows, err := conn.Query(ctx, "SELECT rolname FROM pg_roles")
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	all := make(map[string]bool)
	for _, name := range names {
		if strings.HasPrefix(name, "v-") {
			all[name] = true
		}
	}
	return all, nil
}

// moments are when things happened, by name.
type moments struct {
	mu   sync.Mutex
	at   map[string]time.Time
	err  error         // no more will happen
	news chan struct{} // closed and replaced at each change
}

func newMoments() *moments {
	return &moments{at: make(map[string]time.Time), news: make(chan struct{})}
}

// note notes a moment. The first one counts.
func (m *moments) note(name string, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.at[name]; !known {
		m.at[name] = at
	}
	close(m.news)
	m.news = make(chan struct{})
}

// fail ends the waiting of all.
func (m *moments) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
	close(m.news)
	m.news = make(chan struct{})
}

// wait waits until something has happened, for half a minute at most.
func (m *moments) wait(ctx context.Context, name string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		m.mu.Lock()
		at, known := m.at[name]
		news, err := m.news, m.err
		m.mu.Unlock()
		switch {
		case known:
			return at, nil
		case err != nil:
			return time.Time{}, err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		}
	}
}
