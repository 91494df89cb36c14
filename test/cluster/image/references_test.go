package image_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"leasehold/test/cluster/image"
)

func TestAppVersion(t *testing.T) {
	for name, row := range map[string]struct{ chart, want, fault string }{
		"plain":   {"name: x\nversion: 9.9.9\nappVersion: 0.1.0\n", "0.1.0", ""},
		"quoted":  {"appVersion: \"0.1.0\" # of the product\n", "0.1.0", ""},
		"missing": {"version: 9.9.9\n", "", "it states no appVersion"},
		"empty":   {"appVersion: \"\"\n", "", "it states no appVersion"},
	} {
		t.Run(name, func(t *testing.T) {
			chart := filepath.Join(t.TempDir(), "Chart.yaml")
			if err := os.WriteFile(chart, []byte(row.chart), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := image.AppVersion(chart)
			if got != row.want || (err == nil) != (row.fault == "") ||
				err != nil && !strings.Contains(err.Error(), row.fault) {
				t.Errorf("got %q, error %v, want %q, error %q", got, err, row.want, row.fault)
			}
		})
	}
}
