// Command provider is the node's half of Leasehold: a provider of the Secrets Store CSI driver that gives every pod
// its own Vault credentials, as files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"leasehold/internal/observe"
	"leasehold/internal/podwatch"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "status" {
		os.Exit(runStatus(context.Background(), os.Args[2:], os.Stdout, os.Stderr))
	}
	c, err := parseConfig(os.Args[1:], os.Getenv, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "provider: these settings need mending (see -help):")
		for _, fault := range strings.Split(err.Error(), "\n") {
			fmt.Fprintln(os.Stderr, "  *", fault)
		}
		os.Exit(2)
	case c.ShowVersion:
		fmt.Println("leasehold provider", observe.Version())
		return
	}
	log, err := observe.NewLogger(os.Stderr, c.LogLevel, c.LogFormat)
	if err != nil {
		fmt.Fprintln(os.Stderr, "provider:", err)
		os.Exit(2)
	}
	podwatch.RouteLogs(log)
	time.Local = time.UTC // templates can ask for it, and the node's zone is nobody's business
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, c, log); err != nil {
		fmt.Fprintln(os.Stderr, "provider:", err)
		os.Exit(1)
	}
}
