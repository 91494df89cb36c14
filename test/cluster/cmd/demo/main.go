// Command demo shows on a real cluster what Leasehold does: two pods of one Deployment query PostgreSQL, each as a database
// user of its own; another one's user is replaced while it queries; a pod is deleted, and its user is gone; and five pods that are written for Vault's sidecar
// injector are served without one. What it tells, it has verified: it fails if anything is not so. It runs inside the cluster of test/cluster and leaves everything there, for
// whoever wants to look around.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

const usage = `Plays the story of Leasehold on a real cluster: two pods mount one SecretProviderClass, and each gets
a database user of its own, which is replaced in time and ends with its pod. Then five more do,
annotated as for Vault's sidecar injector.

    make demo            builds what is missing, starts the cluster, and runs this
    build/bin/cluster exec -- build/bin/cluster-demo
                         plays it on the cluster that is up; takes no arguments

It must run in Leasehold's repository. It configures the cluster's Vault, installs Leasehold's chart into
the namespace leasehold-system, and makes the namespaces vault and shop. It can be played again: the pods
in shop are then started anew. NO_COLOR=1 turns the colours off.

Exit code: 0 if all happened as told, 1 if not, 2 for a wrong command line, 130 if interrupted.
`

func main() {
	page.NoArguments("cluster-demo", usage)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt does not wait
	err := run(ctx, page.New(os.Stdout))
	switch {
	case err == nil:
		return
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "cluster-demo: interrupted; the cluster is still up, \"make cluster-down\" ends it")
		os.Exit(130)
	}
	fmt.Fprintln(os.Stderr, "cluster-demo:", err)
	os.Exit(1)
}

// run plays the story on the cluster that the environment describes.
func run(ctx context.Context, p *page.Page) error {
	const environment = "this runs inside the cluster: build/bin/cluster exec -- build/bin/cluster-demo"
	start := time.Now()
	s := &story{page: p, kubernetes: os.Getenv("KUBERNETES_API")}
	if s.kubernetes == "" || os.Getenv("KUBECONFIG") == "" {
		return errors.New("KUBECONFIG or KUBERNETES_API is not set; " + environment)
	}
	audit := os.Getenv("E2E_VAULT_AUDIT")
	if audit == "" {
		return errors.New("E2E_VAULT_AUDIT is not set; " + environment)
	}
	var err error
	if s.vault, s.postgres, err = facts.Existing(audit); err != nil {
		return fmt.Errorf("%w; %s", err, environment)
	}
	if _, err := os.Stat(chart); err != nil {
		return fmt.Errorf("must run in Leasehold's repository: %w", err)
	}
	if err := s.play(ctx); err != nil {
		return fmt.Errorf("%w\nthe cluster is still up: \"make cluster-shell\" looks around, \"make cluster-down\" ends it", err)
	}
	return s.epilogue(time.Since(start))
}
