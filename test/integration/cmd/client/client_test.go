package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// volume makes a directory as the driver's writer leaves it, with files in the directory that ..data names.
func volume(t *testing.T, user, password string) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "..one", "db"), 0o700),
		os.WriteFile(filepath.Join(dir, "..one", "db", "username"), []byte(user), 0o600),
		os.WriteFile(filepath.Join(dir, "..one", "db", "password"), []byte(password), 0o600),
		os.Symlink("..one", filepath.Join(dir, "..data")),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCredentialsAreReadThroughOneDirectory(t *testing.T) {
	dir := volume(t, "ann", "secret")
	user, password, err := credentials(dir)
	if user != "ann" || password != "secret" || err != nil {
		t.Errorf("credentials = %q, %q, %v", user, password, err)
	}
	if err := os.Truncate(filepath.Join(dir, "..one", "db", "password"), 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := credentials(dir); err == nil {
		t.Error("an empty password was taken")
	}
	if err := os.Remove(filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := credentials(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without ..data: %v", err)
	}
}

// A client that never fails a query could not show a gap.
func TestEachFailedQueryIsALineAndIsCounted(t *testing.T) {
	t.Setenv("PGHOST", "127.0.0.1")
	t.Setenv("PGPORT", "1") // nobody listens there
	var out bytes.Buffer
	s := settings{credentials: volume(t, "ann", "open sesame"), every: time.Millisecond, lifetime: 20 * time.Millisecond}
	if !run(t.Context(), s, nil, &out) {
		t.Error("its time was over, but it was told to end")
	}
	if strings.Contains(out.String(), "open sesame") {
		t.Error("a line tells the password")
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var last summary
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if last.Failed != len(lines)-1 || last.Failed == 0 || last.Queries != last.Failed || last.Users != 1 || last.User != "ann" {
		t.Errorf("%d lines before the summary %+v", len(lines)-1, last)
	}
	var first failure
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil || first.User != "ann" || first.Error == "" {
		t.Errorf("the first line: %+v, %v", first, err)
	}
}

func TestItGoesOnForAsLongAsItIsToldTo(t *testing.T) {
	t.Setenv("PGHOST", "127.0.0.1")
	t.Setenv("PGPORT", "1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	began := time.Now()
	if run(ctx, settings{credentials: t.TempDir(), every: time.Millisecond, linger: 50 * time.Millisecond}, nil, &out) {
		t.Error("it was told to end, but says that its time was over")
	}
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("it lingered %s", took)
	}
}

func TestTheEnvironmentIsChecked(t *testing.T) {
	for _, c := range []struct{ name, value string }{{"EVERY", "0s"}, {"LINGER", "-1s"}, {"LIFETIME", "soon"}, {"STATUS", "x"}} {
		if _, err := read(func(name string) string {
			if name == c.name {
				return c.value
			}
			return ""
		}); err == nil || !strings.Contains(err.Error(), c.name) {
			t.Errorf("%s=%s: %v", c.name, c.value, err)
		}
	}
}
