// Command client is an application that lives on rotated credentials: again and again it reads user and password from its
// files, opens a new connection to PostgreSQL with them, and asks one query. What it sees is what an application would
// see: if credentials have a gap, a query fails.
//
// The server's address comes from PGHOST, PGPORT and PGDATABASE. Besides them,
//
//	CREDENTIALS  the volume in which db/username and db/password are (default /secrets)
//	EVERY        from the begin of one query to the begin of the next (default 100ms)
//	LINGER       how long it goes on after SIGTERM (default 0s)
//	LIFETIME     when it ends by itself (default 0s: never)
//	STATUS       the exit status with which it then ends (default 0)
//
// It prints a line of JSON for each query that failed, and a summary every second, at SIGUSR1 and at the end.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// settings are what the environment says.
type settings struct {
	credentials             string
	every, linger, lifetime time.Duration
	status                  int
}

func main() {
	s, err := read(os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ask := make(chan os.Signal, 1)
	signal.Notify(ask, syscall.SIGUSR1)
	if run(ctx, s, ask, os.Stdout) {
		os.Exit(s.status)
	}
}

// read returns the first fault of the environment.
func read(env func(string) string) (settings, error) {
	s := settings{credentials: "/secrets", every: 100 * time.Millisecond}
	if text := env("CREDENTIALS"); text != "" {
		s.credentials = text
	}
	for name, into := range map[string]*time.Duration{"EVERY": &s.every, "LINGER": &s.linger, "LIFETIME": &s.lifetime} {
		text := env(name)
		if text == "" {
			continue
		}
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return settings{}, fmt.Errorf("%s is %q: want a duration such as 100ms", name, text)
		}
		*into = d
	}
	if text := env("STATUS"); text != "" {
		var err error
		if s.status, err = strconv.Atoi(text); err != nil {
			return settings{}, fmt.Errorf("STATUS is %q: want a number", text)
		}
	}
	if s.every == 0 {
		return settings{}, fmt.Errorf("EVERY is 0: want a duration such as 100ms")
	}
	return s, nil
}

// run queries until its time is over, which it tells by true, or until it was told to end and has lingered.
func run(ctx context.Context, s settings, ask <-chan os.Signal, out io.Writer) (over bool) {
	t := tally{out: json.NewEncoder(out), users: make(map[string]bool)}
	defer func() { t.summary() }()
	next, report := time.NewTicker(s.every), time.NewTicker(time.Second)
	defer next.Stop()
	defer report.Stop()
	var lifetime, lingered <-chan time.Time
	if s.lifetime > 0 {
		lifetime = time.After(s.lifetime)
	}
	told := ctx.Done()
	for {
		// A query that has begun is answered: it is not the application's end that makes it fail.
		t.count(query(context.WithoutCancel(ctx), s.credentials))
		select {
		case <-next.C:
		case <-told:
		}
		select {
		case <-lifetime:
			return true
		case <-lingered:
			return false
		case <-told:
			if s.linger == 0 {
				return false
			}
			told, lingered = nil, time.After(s.linger)
		case <-report.C:
			t.summary()
		case <-ask:
			t.summary()
		default:
		}
	}
}

// tally is what the queries have shown.
type tally struct {
	out             *json.Encoder
	queries, failed int
	user            string // of the last query
	users           map[string]bool
}

func (t *tally) count(user string, err error) {
	t.queries++
	if user != "" {
		t.user = user
		t.users[user] = true
	}
	if err != nil {
		t.failed++
		t.say(failure{Time: time.Now().UTC(), User: user, Error: err.Error()})
	}
}

// failure is the line of a query that failed.
type failure struct {
	Time  time.Time `json:"time"`
	User  string    `json:"user"` // "" if it could not be read
	Error string    `json:"error"`
}

// summary is the line that says how it has gone so far.
type summary struct {
	Time    time.Time `json:"time"`
	User    string    `json:"user"` // whose credentials the files hold
	Queries int       `json:"queries"`
	Failed  int       `json:"failed"`
	Users   int       `json:"users"` // how many different ones there were
}

func (t *tally) summary() {
	t.say(summary{Time: time.Now().UTC(), User: t.user, Queries: t.queries, Failed: t.failed, Users: len(t.users)})
}

// say writes a line. Who reads it no more has taken the pod's log away, which is no reason to end.
func (t *tally) say(line any) { _ = t.out.Encode(line) }
