package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

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
