package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"leasehold/internal/observe"
)

// asProvider makes this test's binary the provider itself: a process of its own, with main, signals and exit code.
const asProvider = "LEASEHOLD_TEST_AS_PROVIDER"

func TestMain(m *testing.M) {
	if os.Getenv(asProvider) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command is the provider with some flags, in an environment of its own.
func command(t *testing.T, flags ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, os.Args[0], flags...)
	c.Env = []string{asProvider + "=1", "TMPDIR=" + t.TempDir()}
	return c
}

func TestCommandLine(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		flags  string
		status int
		stdout string
		stderr string // a part of it; "" for nothing at all
	}{
		{flags: "-version", stdout: "leasehold provider " + observe.Version() + "\n"},
		{flags: "-help", stderr: "Usage of provider:"},
		{flags: "-log-format=xml extra", status: 2, stderr: "provider: these settings need mending (see -help):\n" +
			"  * unexpected arguments: [\"extra\"]\n  * -log-format: \"xml\" is neither json nor text\n"},
		{flags: "-nonsense", status: 2, stderr: "-nonsense"},
		{flags: "status -state-dir=" + t.TempDir(), status: 1, stderr: "provider status: no provider answers: dial unix"},
		{flags: "status -o=xml", status: 2, stderr: "provider status: -o:"},
		{flags: "-http-addr=127.0.0.1:0 -journal-on-disk -state-dir=" + t.TempDir() + " -providers-dir=" + file, status: 1, stderr: "provider: make the providers' directory"},
	} {
		t.Run(row.flags, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			c := command(t, strings.Fields(row.flags)...)
			c.Stdout, c.Stderr = &stdout, &stderr
			err := c.Run()
			if got := c.ProcessState.ExitCode(); got != row.status {
				t.Errorf("got exit status %d (%v), want %d", got, err, row.status)
			}
			if got := stdout.String(); got != row.stdout {
				t.Errorf("got stdout %q, want %q", got, row.stdout)
			}
			if got := stderr.String(); !strings.Contains(got, row.stderr) || (got == "") != (row.stderr == "") {
				t.Errorf("got stderr %q, want %q", got, row.stderr)
			}
		})
	}
}

// What a template makes of a time does not depend on the node, nor does the log.
func TestZoneOfTheNodeIsNotUsed(t *testing.T) {
	c := command(t, "-http-addr=127.0.0.1:0", "-journal-on-disk", "-state-dir="+t.TempDir(), "-providers-dir=/dev/null/x")
	// A zone of 45 minutes, as a file: a machine may have no names of zones.
	zone := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(zone, zoneFile(45*60), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Env = append(c.Env, "TZ=:"+zone)
	out, err := c.CombinedOutput()
	if err == nil {
		t.Fatal("it started without a directory for its socket")
	}
	if text := string(out); !strings.Contains(text, `Z","level"`) || strings.Contains(text, "+00:45") {
		t.Errorf("got log\n%s\nwant its times in UTC", text)
	}
}

// zoneFile is what the file of a time zone says that is always so many seconds east of Greenwich.
func zoneFile(seconds int32) []byte {
	file := append([]byte("TZif"), make([]byte, 1+15)...) // version 1, and what is reserved
	for _, count := range []uint32{0, 0, 0, 0, 1, 4} {    // no leap seconds and no transitions, one type, its name's bytes
		file = binary.BigEndian.AppendUint32(file, count)
	}
	file = binary.BigEndian.AppendUint32(file, uint32(seconds))
	return append(file, 0, 0, 'X', 'X', 'X', 0)
}

func TestSignalsEndTheProvider(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			c := command(t, "-http-addr=127.0.0.1:0", "-journal-on-disk", "-providers-dir="+t.TempDir(), "-state-dir="+t.TempDir())
			logs, write := io.Pipe()
			c.Stderr = write
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			follow(logs).await(t, "serving")
			if err := c.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := c.Wait(); err != nil {
				t.Errorf("got %v, want exit status 0", err)
			}
			_ = write.Close()
		})
	}
}
