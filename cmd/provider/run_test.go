package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"leasehold/internal/client/vaulttest"
	"leasehold/internal/observe"
	"leasehold/internal/provider"
)

const patience = 20 * time.Second // for what must happen; nothing waits so long when it does

// journal is the log of a provider, record by record.
type journal struct{ records chan map[string]any }

// follow reads a log until it ends.
func follow(logs io.Reader) *journal {
	j := &journal{records: make(chan map[string]any, 1000)}
	go func() {
		defer close(j.records)
		for lines := bufio.NewScanner(logs); lines.Scan(); {
			record := make(map[string]any)
			if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
				record["msg"] = "not a record: " + lines.Text()
			}
			j.records <- record
		}
	}()
	return j
}

// await returns the next record with the message.
func (j *journal) await(t *testing.T, message string) map[string]any {
	t.Helper()
	limit := time.After(patience)
	var seen []any
	for {
		select {
		case record, more := <-j.records:
			if !more {
				t.Fatalf("the log ended without %q: got %q", message, seen)
			}
			if record["msg"] == message {
				return record
			}
			seen = append(seen, record["msg"])
		case <-limit:
			t.Fatalf("no record %q in the log within %v: got %q", message, patience, seen)
		}
	}
}

// announced returns the address of the provider's web server.
func (j *journal) announced(t *testing.T) (web string) {
	t.Helper()
	return fmt.Sprintf("http://%s", j.await(t, "leasehold provider")["http"])
}

// running is a provider in this process.
type running struct {
	*journal
	web   string
	stop  context.CancelFunc // as a signal does
	ended <-chan error
}

// start starts a provider whose sockets and state are below dir, and returns when it has a web server.
func start(t *testing.T, dir, flags string) *running {
	t.Helper()
	c, err := parse("-http-addr=127.0.0.1:0 -journal-on-disk -providers-dir=" + dir + "/providers -state-dir=" + dir + "/state " + flags)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	logs, write := io.Pipe()
	log, err := observe.NewLogger(write, c.LogLevel, c.LogFormat)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, c, log)
		_ = write.Close()
	}()
	r := &running{journal: follow(logs), stop: cancel, ended: ended}
	r.web = r.announced(t)
	return r
}

// end tells the provider to end, and wants it to do so without an error.
func (r *running) end(t *testing.T) {
	t.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		if err != nil {
			t.Errorf("got error %v at the end, want none", err)
		}
	case <-time.After(patience):
		t.Fatal("the provider did not end")
	}
}

// get makes a request and returns status and body.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// The provider from end to end, in this process: it starts, answers, and ends when it is told to.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, "-vault-addr="+vaulttest.New(t).Address())
	r.await(t, "serving")

	if status, body := get(t, r.web+"/livez"); status != http.StatusOK {
		t.Errorf("/livez: got %d %q, want 200", status, body)
	}
	// The check goes through the socket, which is for root only.
	ready := http.StatusOK
	if os.Getuid() != 0 {
		ready = http.StatusServiceUnavailable
	}
	if status, body := get(t, r.web+"/readyz"); status != ready {
		t.Errorf("/readyz: got %d %q, want %d", status, body, ready)
	}
	status, figures := get(t, r.web+"/metrics")
	if version := "leasehold_build_info{version=" + strconv.Quote(observe.Version()) + "} 1"; status != http.StatusOK ||
		!strings.Contains(figures, version) || !strings.Contains(figures, "\nleasehold_volumes 0\n") {
		t.Errorf("/metrics: got %d, want 200 with %s and no volumes", status, version)
	}
	if _, err := os.Stat(provider.SocketPath(dir+"/providers", "vault")); err != nil {
		t.Error(err)
	}
	if status, stdout, stderr := ask(t, "-state-dir="+dir+"/state"); status != 0 || !strings.HasPrefix(stdout, "Nothing is held") {
		t.Errorf("provider status: got exit status %d, %q, %q; want 0 and that nothing is held", status, stdout, stderr)
	}
	r.end(t)
	if status, _, _ := ask(t, "-state-dir="+dir+"/state"); status != 1 {
		t.Errorf("provider status, after the end: got exit status %d, want 1", status)
	}
}

// What the settings leave undone is said at the start: it shows only when credentials end.
func TestWhatIsOffIsSaid(t *testing.T) {
	dir := t.TempDir()
	const (
		ends     = "pods' ends are not noticed"
		polls    = "running pods get new credentials by the driver's polls alone"
		missing  = "for -pods-dir cannot be seen"
		requests = "-token-requests is off"
		disk     = "-journal-on-disk: whoever reads the disk"
		abandon  = "-abandon-after is shorter"
	)
	all := []string{ends, polls, missing, requests, disk, abandon}
	for line, want := range map[string][]string{
		"-pods-dir=" + dir: {ends, requests},
		"-pods-dir=" + dir + " -node-name=n -token-requests": nil,
		"-pods-dir=" + dir + "/none":                         {ends, polls, missing, requests},
		"-publish=false -pods-dir=" + dir + "/none":          {ends, polls, requests},
		"-pods-dir=" + dir + " -journal-on-disk":             {ends, requests, disk},
		"-pods-dir=" + dir + " -abandon-after=1m":            {ends, requests, abandon},
	} {
		c, err := parse(line)
		if err != nil {
			t.Fatal(err)
		}
		var logs bytes.Buffer
		sayWhatIsOff(c, slog.New(slog.NewTextHandler(&logs, nil)))
		for _, text := range all {
			if said := strings.Contains(logs.String(), text); said != slices.Contains(want, text) {
				t.Errorf("%s: got %v for %q in\n%s", line, said, text, logs.String())
			}
		}
	}
}

// What cannot be started ends with a reason, and leaves no half of it behind.
func TestRunThatCannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // of a moment
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	shared, locked, occupied := t.TempDir(), t.TempDir(), t.TempDir()
	if err := errors.Join(os.Chmod(shared, 0o777), os.Mkdir(locked+"/vault.lock", 0o700),
		os.WriteFile(occupied+"/vault", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		change func(*config)
		want   string
	}{
		"web address in use": {func(c *config) { c.HTTPAddr = taken.Addr().String() }, "-http-addr: listen tcp"},
		"no directory":       {func(c *config) { c.ProvidersDir = file }, "make the providers' directory"},
		"no state directory": {func(c *config) { c.StateDir = file }, "-state-dir: mkdir " + file},
		"state for everybody": {
			func(c *config) { c.StateDir = shared },
			"it must be a directory of the node that this user alone may write to",
		},
		"no lock": {func(c *config) { c.StateDir = locked }, "-state-dir: open " + locked + "/vault.lock: is a directory"},
		"no journal": {
			func(c *config) { c.StateDir = occupied },
			"the provider does not start without a journal that it can write to",
		},
		"no access to the API server": {
			func(c *config) { c.NodeName = "n" },
			"watching the pods of a node takes access to the API server",
		},
		"no such kubeconfig": {func(c *config) { c.NodeName, c.Kubeconfig = "n", file+"/none" }, "-kubeconfig: error loading config file"},
		"no timeout":         {func(c *config) { c.Client.Timeout = 0 }, "timeout of a Vault request"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c, err := parse("-http-addr=127.0.0.1:0 -journal-on-disk -providers-dir=" + dir + " -state-dir=" + t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			row.change(&c)
			ctx, cancel := context.WithTimeout(t.Context(), patience) // one that starts ends without an error
			defer cancel()
			if err := run(ctx, c, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got error %v, want one with %q", err, row.want)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
				t.Errorf("got %v (%v) in the providers' directory, want nothing", entries, err)
			}
		})
	}
}
