package main

import (
	"context"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/render"
	"leasehold/internal/spec"
)

// renderTemplate is how long a file takes that a template makes of database credentials, in the form of the injector's
// documentation. The template has been parsed before, as it has been at every poll but the first.
func renderTemplate(ctx context.Context, _ *world) ([]reading, error) {
	const runs = 5
	const path = "database/creds/app"
	renderer := render.New()
	volume := render.Volume{
		Objects: []spec.Object{{Name: "url", Mode: 0o644, Template: spec.Template{Text: `{{- with secret "` + path + `" -}}
postgresql://{{ .Data.username }}:{{ .Data.password }}@postgres:5432/app?sslmode=disable
{{- end }}
`}}},
		Since: time.Now(),
		Read: func(source spec.Source) (client.Grant, error) {
			return client.Grant{
				Source: source, LeaseID: path + "/x", LeaseDuration: time.Hour, Renewable: true, Obtained: time.Now(),
				Data: redact.NewBytes([]byte(`{"username":"v-kubernetes-app-x","password":"A1b2C3d4E5f6G7h8I9j0"}`)),
			}, nil
		},
	}
	if _, _, err := renderer.Files(volume); err != nil {
		return nil, err
	}
	var took []float64
	calls := 0
	for range runs {
		var failure error
		result := testing.Benchmark(func(b *testing.B) {
			for b.Loop() {
				if _, _, err := renderer.Files(volume); err != nil {
					failure = err
				}
			}
		})
		if failure != nil {
			return nil, failure
		}
		took = append(took, float64(result.T.Nanoseconds())/float64(result.N)/1e3)
		calls += result.N
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return []reading{{median(took), []string{
		note("a volume of one template over %s: median of %d rounds, %d calls; rounds %s us", path, runs, calls, span(took)),
	}}}, nil
}
