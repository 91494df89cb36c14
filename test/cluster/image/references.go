package image

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// What images are called by those who make them and by those who run them.
const (
	Pause = "registry.k8s.io/pause:3.10"  // what containerd runs for each pod
	App   = "localhost/leasehold/app:e2e" // a shell and psql, for pods of tests and demos
)

// Provider is the provider's image of a version, as the chart calls it.
func Provider(version string) string { return "leasehold/provider:" + version }

// Webhook is the webhook's image of a version, as the chart calls it.
func Webhook(version string) string { return "leasehold/webhook:" + version }

// AppVersion returns the appVersion that a Chart.yaml states.
func AppVersion(chart string) (string, error) {
	file, err := os.Open(chart)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if value, found := strings.CutPrefix(lines.Text(), "appVersion:"); found {
			value, _, _ = strings.Cut(value, "#")
			if value = strings.Trim(value, ` "'`); value != "" {
				return value, nil
			}
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read %q: %w", chart, err)
	}
	return "", fmt.Errorf("read %q: it states no appVersion", chart)
}
