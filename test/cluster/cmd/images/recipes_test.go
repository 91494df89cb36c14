package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
			got, err := appVersion(chart)
			if got != row.want || (err == nil) != (row.fault == "") ||
				err != nil && !strings.Contains(err.Error(), row.fault) {
				t.Errorf("got %q, error %v, want %q, error %q", got, err, row.want, row.fault)
			}
		})
	}
}

// The kubelet finds our images under the names that the driver's chart asks for, or nowhere.
func TestReferencesAreThoseOfTheDriversChart(t *testing.T) {
	module, err := exec.CommandContext(t.Context(),
		"go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/secrets-store-csi-driver").Output()
	if err != nil {
		t.Fatalf("find the driver's module: %v", err)
	}
	values, err := os.ReadFile(filepath.Join(
		strings.TrimSpace(string(module)), "charts/secrets-store-csi-driver/values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(string(values)), " ")
	for _, reference := range []string{driverImage, registrarImage, livenessprobeImage} {
		repository, tag, _ := strings.Cut(reference, ":")
		if want := "repository: " + repository + " tag: " + tag + " "; !strings.Contains(words, want) {
			t.Errorf("the chart's values do not hold %q", want)
		}
	}
}
