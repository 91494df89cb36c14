{{/* The notes: what was installed, and what there is to do (.advice, a list of sentences). .root is the usual dot. */}}
{{- define "leasehold.notes" -}}
Leasehold {{ .root.Chart.AppVersion }} serves classes with "provider: {{ .root.Values.provider.name }}" on every node:

  kubectl -n {{ .root.Release.Namespace }} rollout status daemonset/{{ include "leasehold.provider.name" .root }}
{{- if .advice }}

To do:
{{- range $i, $text := .advice }}

{{ add1 $i }}. {{ $text }}
{{- end }}
{{- end }}

How to write a class: docs/spc-parameters.md in Leasehold's repository.
{{ end }}
