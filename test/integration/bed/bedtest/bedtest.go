// Package bedtest opens a test bed for a test.
package bedtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"leasehold/test/integration/bed"
)

// Open opens a bed that ends with the test. What does not end as it should fails the test; the end of every server's log
// is shown when the test has failed.
func Open(t testing.TB) *bed.Bed {
	t.Helper()
	b, err := bed.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, b.Dir)
		}
		if err := b.Close(); err != nil {
			t.Errorf("close bed: %v", err)
		}
	})
	return b
}

func showLogs(t testing.TB, dir string) {
	const most = 40
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		t.Logf("end of %s:\n%s", filepath.Base(path), strings.Join(lines[max(0, len(lines)-most):], "\n"))
	}
}
