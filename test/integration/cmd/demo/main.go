// Command demo shows in a few seconds what Leasehold does: two pods mount one SecretProviderClass, and each gets a
// database user of its own, on a real Vault and a real PostgreSQL, which it starts and ends itself. What it tells, it has
// verified: it fails if anything is not so.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/page"
)

const usage = `Plays the story of Leasehold on this machine: two pods mount one SecretProviderClass, and each gets
a database user of its own.

    make demo-local      builds what is missing, and runs this
    build/bin/demo       takes no arguments

It starts a PostgreSQL (Debian's package), a Vault and Leasehold's provider (both from build/bin;
VAULT_BIN may name a stock "vault" or "bao"), on free ports of 127.0.0.1 and in a temporary folder,
and ends them again, however it ends itself. It must run as root, as the driver does, and in
Leasehold's repository. NO_COLOR=1 turns the colours off.

Exit code: 0 if all happened as told, 1 if not, 2 for a wrong command line, 130 if interrupted.
`

func main() {
	page.NoArguments("demo", usage)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt does not wait: the bed's janitor cleans up
	err := run(ctx, page.New(os.Stdout))
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "demo:", err)
	if errors.Is(err, errInterrupted) {
		os.Exit(130)
	}
	os.Exit(1)
}

var errInterrupted = errors.New("interrupted; everything is taken down")

// run plays the story on a bed of its own, which is closed in any case.
func run(ctx context.Context, p *page.Page) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("must run as root: the provider answers root alone, as the Secrets Store CSI driver is root")
	}
	start := time.Now()
	b, err := bed.Open()
	if err != nil {
		return err
	}
	defer func() {
		closing := b.Close()
		if err != nil && ctx.Err() != nil && closing == nil {
			err = errInterrupted // whatever it was that the interrupt made fail
			return
		}
		err = errors.Join(err, closing)
	}()
	s := &story{bed: b, page: p}
	if err := s.play(ctx); err != nil {
		return err
	}
	if err := s.end(ctx); err != nil {
		return err
	}
	return s.epilogue(time.Since(start))
}
