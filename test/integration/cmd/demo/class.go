package main

import (
	_ "embed"
	"fmt"
	"strings"

	secretsstorev1 "sigs.k8s.io/secrets-store-csi-driver/apis/v1"
	"sigs.k8s.io/yaml"
)

// classYAML is the class of the story, as a user writes it. What is shown is what is mounted.
//
//go:embed spc.yaml
var classYAML string

// parseClass reads a class as the API server of a cluster does: into the driver's own type, without a field too many.
func parseClass(text string) (*secretsstorev1.SecretProviderClass, error) {
	class := new(secretsstorev1.SecretProviderClass)
	if err := yaml.UnmarshalStrict([]byte(text), class); err != nil {
		return nil, fmt.Errorf("parse the SecretProviderClass: %w", err)
	}
	if class.Spec.Provider != "vault" {
		return nil, fmt.Errorf("the SecretProviderClass %q is for provider %q, want \"vault\"", class.Name, class.Spec.Provider)
	}
	return class, nil
}

// edit is a line of the class, and what it becomes.
type edit struct{ from, to string }

// apply changes the lines, each of which must be there exactly once.
func apply(text string, edits ...edit) (string, error) {
	for _, e := range edits {
		if n := strings.Count(text, e.from+"\n"); n != 1 {
			return "", fmt.Errorf("the class has the line %q %d times, want once", e.from, n)
		}
		text = strings.Replace(text, e.from+"\n", e.to+"\n", 1)
	}
	return text, nil
}
