package webhook

import (
	"testing"

	"leasehold/internal/render"
	"leasehold/internal/spec"
)

// BenchmarkTranslate translates a pod in the style of the injector's documentation.
func BenchmarkTranslate(b *testing.B) {
	pod := annotated(map[string]string{
		"agent-inject-secret-config":  "kv/data/app",
		"agent-inject-secret-db.conf": "database/creds/app",
		"agent-inject-template-db.conf": `{{- with secret "database/creds/app" -}}
postgresql://{{ .Data.username }}:{{ .Data.password }}@postgres:5432/app?sslmode=disable
{{- end }}`,
	})
	p := Policy{
		Vault:       spec.Vault{Address: "https://vault.example:8200", AuthPath: "kubernetes", Audience: "vault"},
		Permissions: Compat, Impossible: Deny, ProviderName: "vault", CheckTemplate: render.New().Check,
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Translate(pod, nil); err != nil {
			b.Fatal(err)
		}
	}
}
