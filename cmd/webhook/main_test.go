package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"leasehold/internal/observe"
)

// asWebhook makes this test's binary the webhook itself: a process of its own, with main, signals and exit code.
const asWebhook = "LEASEHOLD_TEST_AS_WEBHOOK"

func TestMain(m *testing.M) {
	if os.Getenv(asWebhook) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command is the webhook with some flags, in an environment of its own.
func command(t *testing.T, flags ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, os.Args[0], flags...)
	c.Env = []string{asWebhook + "=1", "POD_NAMESPACE=leasehold-system", "POD_NAME=leasehold-webhook-1", "TMPDIR=" + t.TempDir()}
	return c
}

func TestCommandLine(t *testing.T) {
	for _, row := range []struct {
		flags  string
		status int
		stdout string
		stderr string // a part of it; "" for nothing at all
	}{
		{flags: "-version", stdout: "leasehold webhook " + observe.Version() + "\n"},
		{flags: "-help", stderr: "Usage of webhook:"},
		{flags: "-log-format=xml extra", status: 2, stderr: "webhook: these settings need mending (see -help):\n" +
			"  * unexpected arguments: [\"extra\"]\n  * -log-format: \"xml\" is neither json nor text\n"},
		{flags: "-nonsense", status: 2, stderr: "-nonsense"},
		{flags: "-http-addr=127.0.0.1:0", status: 1, stderr: "webhook: the webhook needs access to the API server"},
		{flags: "-kubeconfig=/nonexistent", status: 1, stderr: "webhook: -kubeconfig: "},
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

func TestSignalsEndTheWebhook(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			server := cluster(t)
			kubeconfig := t.TempDir() + "/config"
			if err := server.Kubeconfig(kubeconfig); err != nil {
				t.Fatal(err)
			}
			c := command(t, "-http-addr=127.0.0.1:0", "-https-addr=127.0.0.1:0", "-drain=0s", "-kubeconfig="+kubeconfig)
			logs, err := c.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			j := follow(logs)
			j.await(t, "the API server trusts the webhook's certificate")
			if err := c.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			j.await(t, "ended")
			if err := c.Wait(); err != nil {
				t.Errorf("got %v, want exit status 0", err)
			}
		})
	}
}
