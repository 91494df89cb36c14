package render

import (
	"testing"

	"leasehold/internal/spec"
)

// documented are templates in the style of the injector's documentation.
var documented = map[string]string{
	"credentials": `{{- with secret "database/creds/app" -}}
postgresql://{{ .Data.username }}:{{ .Data.password }}@postgres:5432/app?sslmode=disable
{{- end }}
`,
	"environment": `{{- with secret "secret/data/app" -}}
{{- range $k, $v := .Data.data }}
export {{ $k | toUpper }}="{{ $v }}"
{{- end }}
{{- end }}
`,
	"json": `{
{{- with secret "database/creds/app" }}
  "username": {{ .Data.username | toJSON }},
  "password": {{ .Data.password | toJSON }}
{{- end }}
}
`,
	"sprig": `{{ with secret "database/creds/app" }}{{ .Data.password | sprig_b64enc | sprig_quote }}{{ end }}`,
}

var documentedAnswers = vault{
	"database/creds/app": `{"username":"v-kubernetes-app-x","password":"A1b2C3d4E5f6G7h8I9j0"}`,
	"secret/data/app":    `{"data":{"api_key":"0123456789abcdef","url":"https://api.example.com","user":"app"},"metadata":{"version":3}}`,
}

// BenchmarkExecute executes a template that was parsed before. What Vault and its answer take is not in it.
func BenchmarkExecute(b *testing.B) {
	for name, text := range documented {
		b.Run(name, func(b *testing.B) {
			r, e, t := New(), around(b, documentedAnswers), spec.Template{Text: text}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.execute(t, e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkParse checks a template that was not seen before, and makes a machine of it.
func BenchmarkParse(b *testing.B) {
	for name, text := range documented {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p, err := parseTemplate(spec.Template{Text: text})
				if err != nil {
					b.Fatal(err)
				}
				p.machine()
			}
		})
	}
}
