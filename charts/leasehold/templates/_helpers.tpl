{{/* The release's name, with the chart's in it. What is appended must fit into the 63 characters of a label. */}}
{{- define "leasehold.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | trunc 53 | trimSuffix "-" -}}
{{- end }}

{{/* The name of what belongs to the provider. */}}
{{- define "leasehold.provider.name" -}}
{{- include "leasehold.fullname" . }}-provider
{{- end }}

{{/* The labels that tell the provider's pods. They can never change: a DaemonSet's selector is immutable. */}}
{{- define "leasehold.provider.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: provider
{{- end }}

{{/* The labels of every object of the provider. */}}
{{- define "leasehold.provider.labels" -}}
{{ include "leasehold.provider.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The name of what belongs to the webhook, and of the objects that it shares with its replicas. */}}
{{- define "leasehold.webhook.name" -}}
{{- include "leasehold.fullname" . }}-webhook
{{- end }}

{{/* The labels that tell the webhook's pods. They can never change: a Deployment's selector is immutable. */}}
{{- define "leasehold.webhook.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: webhook
{{- end }}

{{/* The labels of every object of the webhook. */}}
{{- define "leasehold.webhook.labels" -}}
{{ include "leasehold.webhook.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The namespaces whose pods the webhook serves. Its own is never one: it must not wait for itself. */}}
{{- define "leasehold.webhook.namespaces" -}}
{{- with .Values.webhook.namespaceSelector.matchLabels -}}
matchLabels:
  {{- toYaml . | nindent 2 }}
{{ end -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values: [{{ .Release.Namespace | quote }}]
  {{- with .Values.webhook.namespaceSelector.matchExpressions }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* How many seconds a duration such as 1m40s has. Templates can read one only by adding it to a time. What is no
duration has 0. */}}
{{- define "leasehold.seconds" -}}
{{- $start := now -}}
{{- sub (dateModify . $start | unixEpoch | int64) (unixEpoch $start | int64) -}}
{{- end }}

{{/* What the Go runtime may hold of a memory limit in whole Mi or Gi: three quarters. */}}
{{- define "leasehold.gomemlimit" -}}
{{- $mebibytes := regexFind "^[0-9]+" . | int64 -}}
{{- if hasSuffix "Gi" . }}{{ $mebibytes = mul $mebibytes 1024 }}{{ end -}}
{{- div (mul $mebibytes 3) 4 }}MiB
{{- end }}
