// Command webhook is the cluster's half of Leasehold: an admission webhook that lets pods which are annotated for Vault's
// sidecar injector work without their sidecar.
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

	"leasehold/internal/observe"
	"leasehold/internal/podwatch"
)

func main() {
	c, err := parseConfig(os.Args[1:], os.Getenv, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "webhook: these settings need mending (see -help):")
		for _, fault := range strings.Split(err.Error(), "\n") {
			fmt.Fprintln(os.Stderr, "  *", fault)
		}
		os.Exit(2)
	case c.ShowVersion:
		fmt.Println("leasehold webhook", observe.Version())
		return
	}
	log, err := observe.NewLogger(os.Stderr, c.LogLevel, c.LogFormat)
	if err != nil {
		fmt.Fprintln(os.Stderr, "webhook:", err)
		os.Exit(2)
	}
	podwatch.RouteLogs(log)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, c, log); err != nil {
		fmt.Fprintln(os.Stderr, "webhook:", err)
		os.Exit(1)
	}
}
