package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"leasehold/internal/client/vaulttest"
	"leasehold/internal/provider"
)

const patience = 20 * time.Second // for what must happen; nothing waits so long when it does

// started reads the log of a provider until it says that it serves, and returns the address of its web server. The rest
// of the log is thrown away.
func started(t *testing.T, logs io.Reader) (web string) {
	t.Helper()
	lines := bufio.NewScanner(logs)
	for lines.Scan() {
		var record struct{ Msg, HTTP string }
		if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
			t.Fatalf("got log line %q: %v", lines.Text(), err)
		}
		if record.Msg == "leasehold provider" {
			go func() { _, _ = io.Copy(io.Discard, logs) }()
			return "http://" + record.HTTP
		}
	}
	t.Fatalf("the provider ended without having served: %v", lines.Err())
	return ""
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
	c, err := parse("-http-addr=127.0.0.1:0 -providers-dir=" + dir + " -vault-addr=" + vaulttest.New(t).Address())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	logs, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, c, write)
		_ = write.Close()
	}()
	web := started(t, logs)

	if status, body := get(t, web+"/livez"); status != http.StatusOK {
		t.Errorf("/livez: got %d %q, want 200", status, body)
	}
	// The check goes through the socket, which is for root only.
	ready := http.StatusOK
	if os.Getuid() != 0 {
		ready = http.StatusServiceUnavailable
	}
	if status, body := get(t, web+"/readyz"); status != ready {
		t.Errorf("/readyz: got %d %q, want %d", status, body, ready)
	}
	status, figures := get(t, web+"/metrics")
	if version := "leasehold_build_info{version=" + strconv.Quote(version()) + "} 1"; status != http.StatusOK ||
		!strings.Contains(figures, version) || !strings.Contains(figures, "\nleasehold_volumes 0\n") {
		t.Errorf("/metrics: got %d, want 200 with %s and no volumes", status, version)
	}
	if _, err := os.Stat(provider.SocketPath(dir, "vault")); err != nil {
		t.Error(err)
	}

	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("got error %v at the end, want none", err)
		}
	case <-time.After(patience):
		t.Fatal("the provider did not end")
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
	for name, row := range map[string]struct {
		change func(*config)
		want   string
	}{
		"web address in use": {func(c *config) { c.HTTPAddr = taken.Addr().String() }, "-http-addr: listen tcp"},
		"no directory":       {func(c *config) { c.ProvidersDir = file }, "make the providers' directory"},
		"log format":         {func(c *config) { c.LogFormat = "" }, "log format"},
		"no timeout":         {func(c *config) { c.Client.Timeout = 0 }, "timeout of a Vault request"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c, err := parse("-http-addr=127.0.0.1:0 -providers-dir=" + dir)
			if err != nil {
				t.Fatal(err)
			}
			row.change(&c)
			if err := run(t.Context(), c, io.Discard); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got error %v, want one with %q", err, row.want)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
				t.Errorf("got %v (%v) in the providers' directory, want nothing", entries, err)
			}
		})
	}
}
