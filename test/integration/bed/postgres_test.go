package bed_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"leasehold/test/integration/bed/bedtest"
)

func TestPostgresLife(t *testing.T) {
	ctx := t.Context()
	p, err := bedtest.Open(t).StartPostgres(ctx)
	check(t, "start", err)
	check(t, "exec", p.Exec(ctx, `CREATE ROLE "v-one" WITH LOGIN PASSWORD 'word'`))
	login := func() error { return p.Login(ctx, "v-one", "word") }
	check(t, "login", login())

	check(t, "restart", p.Restart(ctx))
	check(t, "login after a restart", login())

	check(t, "stop", p.Stop())
	if err := login(); err == nil {
		t.Error("login while stopped: got no error")
	}
	if err := p.Stop(); err == nil {
		t.Error("stop while stopped: got no error")
	}
	check(t, "start again", p.Start(ctx))
	check(t, "kill", p.Kill())
	check(t, "start after a kill", p.Start(ctx))
	check(t, "login after a kill", login())

	check(t, "pause", p.Pause())
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := p.Login(short, "v-one", "word"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("login while paused: got %v, want a deadline that passes", err)
	}
	check(t, "resume", p.Resume())
	check(t, "login after a pause", login())
	check(t, "pause again, for Close to cope with", p.Pause())
}
