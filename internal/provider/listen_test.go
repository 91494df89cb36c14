package provider

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestListenReplacesASocketWithoutAGap(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "providers")
	log := slog.New(slog.DiscardHandler)
	first, err := Listen(dir, "vault", log)
	if err != nil {
		t.Fatal(err)
	}
	greet(t, first, "first")
	path := SocketPath(dir, "vault")
	if got := ask(t, path); got != "first" {
		t.Fatalf("answered by %q, want the first instance", got)
	}
	second, err := Listen(dir, "vault", log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close() }()
	greet(t, second, "second")
	if got := ask(t, path); got != "second" {
		t.Fatalf("answered by %q, want the second instance", got)
	}
	// The old instance ends later, and must not take the new one's socket with it.
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, path); got != "second" {
		t.Fatalf("after the first ended: answered by %q, want the second instance", got)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	// A stale socket is better than none: a driver without a file answers at once instead of waiting.
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatalf("after the end: %v, want the socket to stay", err)
	}
	if got, want := info.Mode(), os.ModeSocket|0o600; got != want {
		t.Errorf("mode %v, want %v", got, want)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v (%v), want the socket alone", entries, err)
	}
}

func TestListenLeavesTheDirectoryAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "providers")
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(dir, "vault", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("mode %v (%v), want 0711 as before: other providers share the directory", info.Mode(), err)
	}
}

func TestListenServesOneUserOnly(t *testing.T) {
	dir := t.TempDir()
	l, err := listen(dir, "vault", uint32(os.Getuid())+1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	greet(t, l, "secret")
	if got := ask(t, SocketPath(dir, "vault")); got != "" {
		t.Errorf("a peer of another user was answered %q, want a closed connection", got)
	}
}

// greet accepts connections of l and writes word to each.
func greet(t *testing.T, l net.Listener, word string) {
	t.Helper()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, word)
			_ = conn.Close()
		}
	}()
}

// ask returns what the server at path writes.
func ask(t *testing.T, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
