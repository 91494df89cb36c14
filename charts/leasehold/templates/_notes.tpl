{{/* The notes: what was installed, and what there is to do (.advice, a list of sentences). .root is the usual dot. */}}
{{- define "leasehold.notes" -}}
Leasehold {{ .root.Chart.AppVersion }} serves classes with "provider: {{ .root.Values.provider.name }}" on every node:

  kubectl -n {{ .root.Release.Namespace }} rollout status daemonset/{{ include "leasehold.provider.name" .root }}

What it holds for the pods of a node, asked of the provider's pod there:

  kubectl -n {{ .root.Release.Namespace }} get pods -o wide -l app.kubernetes.io/instance={{ .root.Release.Name }}
  kubectl -n {{ .root.Release.Namespace }} exec POD -- /provider status
  {{- if ne .root.Values.provider.name "vault" }} -provider-name={{ .root.Values.provider.name }}{{ end }}
  {{- if ne .root.Values.stateDir "/run/leasehold" }} -state-dir={{ .root.Values.stateDir }}{{ end }}
{{- if .root.Values.webhook.enabled }}

Pods that are annotated for Vault's sidecar injector get their secrets from Leasehold as well:

  kubectl -n {{ .root.Release.Namespace }} rollout status deployment/{{ include "leasehold.webhook.name" .root }}

Annotations belong on the pods: in a Deployment under spec.template.metadata. On the Deployment itself they do nothing.
{{- end }}
{{- if .advice }}

To do:
{{- range $i, $text := .advice }}

{{ add1 $i }}. {{ $text }}
{{- end }}
{{- end }}

How to write a class: docs/spc-parameters.md in Leasehold's repository.
{{ end }}
