// Package integration tests the provider's own process: the Secrets Store CSI driver's code calls it and writes its files,
// a real Vault and a real PostgreSQL answer.
package integration

import (
	"context"
	"fmt"
	"os"
	"testing"

	"leasehold/test/integration/bed"
)

func TestMain(m *testing.M) {
	if status, again := bed.Isolate(); again {
		os.Exit(status)
	}
	os.Exit(run(m))
}

// run makes the world, runs the tests, and then searches all that the product said meanwhile for secrets.
func run(m *testing.M) (status int) {
	w, err := newWorld(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		return 1
	}
	defer func() {
		if err := w.bed.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "integration: close the bed:", err)
			status = 1
		}
	}()
	shared = w
	status = m.Run()
	if err := canary(w); err != nil {
		fmt.Fprintln(os.Stderr, "integration: canary:", err)
		status = 1
	}
	return status
}
