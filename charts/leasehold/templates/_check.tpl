{{/* Fails with every fault of the values that their schema cannot see, one a line. */}}
{{- define "leasehold.check" -}}
{{- $faults := list -}}
{{- $vault := .Values.vault -}}

{{- if and $vault.tls.caSecret.name $vault.tls.caConfigMap.name -}}
{{- $faults = append $faults
  "vault.tls: caSecret and caConfigMap both name certificate authorities; keep one of them" -}}
{{- end -}}

{{- $sources := compact (list $vault.tlsDir.secret $vault.tlsDir.configMap $vault.tlsDir.hostPath) -}}
{{- if gt (len $sources) 1 -}}
{{- $faults = append $faults "vault.tlsDir: has several sources; keep one of secret, configMap and hostPath" -}}
{{- end -}}

{{- $wait := include "leasehold.seconds" .Values.provider.mountTimeout | int -}}
{{- if or (le $wait 0) (gt $wait 100) -}}
{{- $faults = append $faults (printf
  "provider.mountTimeout: %s must be above 0 and at most 1m40s, since kubelet gives up after 2m"
  .Values.provider.mountTimeout) -}}
{{- end -}}

{{- /* A directory that is mounted within another would hide a part of it. */ -}}
{{- $paths := dict "driver.providersDir" .Values.driver.providersDir "stateDir" .Values.stateDir
  "the chart's own files" "/etc/leasehold/vault"
  "the service account's files" "/var/run/secrets/kubernetes.io/serviceaccount" -}}
{{- if .Values.provider.publish -}}
{{- $_ := set $paths "kubelet's directory of pods" (printf "%s/pods" .Values.driver.kubeletRootDir) -}}
{{- end -}}
{{- if $sources }}{{ $_ := set $paths "vault.tlsDir.mountPath" $vault.tlsDir.mountPath }}{{ end -}}
{{- range $name, $path := $paths -}}
{{- range $other, $outer := $paths -}}
{{- /* Two that are the same are one fault, not two. */ -}}
{{- $once := or (ne $path $outer) (lt $name $other) -}}
{{- if and (ne $name $other) $once (hasPrefix (printf "%s/" $outer) (printf "%s/" $path)) -}}
{{- $faults = append $faults (printf
  "%s: %s is within %s of %s; choose separate directories" $name $path $outer $other) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $flags := include "leasehold.flags" . | fromYaml -}}
{{- range .Values.provider.extraArgs -}}
{{- $flag := regexFind "[a-z][a-z0-9-]*" . -}}
{{- if hasKey $flags $flag -}}
{{- $faults = append $faults (printf "provider.extraArgs: %s belongs to the chart; %s" . (get $flags $flag)) -}}
{{- end -}}
{{- end -}}
{{- range .Values.provider.extraEnv -}}
{{- if hasPrefix "VAULT_" .name -}}
{{- $faults = append $faults (printf
  "provider.extraEnv: %s would be a second place for a setting of Vault; use the values below vault" .name) -}}
{{- else if eq .name "GOMEMLIMIT" -}}
{{- $faults = append $faults
  "provider.extraEnv: GOMEMLIMIT belongs to the chart; set provider.resources.limits.memory" -}}
{{- else if eq .name "NODE_NAME" -}}
{{- $faults = append $faults "provider.extraEnv: NODE_NAME belongs to the chart; Kubernetes sets it" -}}
{{- end -}}
{{- end -}}

{{- $selector := include "leasehold.provider.selector" . | fromYaml -}}
{{- range $label, $_ := .Values.provider.podLabels -}}
{{- if hasKey $selector $label -}}
{{- $faults = append $faults (printf
  "provider.podLabels: %s is how the chart knows its pods; choose another label" $label) -}}
{{- end -}}
{{- end -}}

{{- if .Values.webhook.enabled -}}
{{- if lt (include "leasehold.seconds" .Values.webhook.classGrace | int) 120 -}}
{{- $faults = append $faults (printf "webhook.classGrace: %s must be at least 2m" .Values.webhook.classGrace) -}}
{{- end -}}
{{- if lt (include "leasehold.seconds" .Values.webhook.certificateLife | int) 60 -}}
{{- $faults = append $faults (printf "webhook.certificateLife: %s must be at least 1m" .Values.webhook.certificateLife) -}}
{{- end -}}
{{- $flags := include "leasehold.webhook.flags" . | fromYaml -}}
{{- range .Values.webhook.extraArgs -}}
{{- $flag := regexFind "[a-z][a-z0-9-]*" . -}}
{{- if hasKey $flags $flag -}}
{{- $faults = append $faults (printf "webhook.extraArgs: %s belongs to the chart; %s" . (get $flags $flag)) -}}
{{- end -}}
{{- end -}}
{{- $selector := include "leasehold.webhook.selector" . | fromYaml -}}
{{- range $label, $_ := .Values.webhook.podLabels -}}
{{- if hasKey $selector $label -}}
{{- $faults = append $faults (printf
  "webhook.podLabels: %s is how the chart knows its pods; choose another label" $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if $faults -}}
{{- fail (printf "\n\nThese values need mending:\n  * %s\n" (join "\n  * " $faults)) -}}
{{- end -}}
{{- end }}

{{/* The flags that the chart sets, each with what to do instead of setting it by extraArgs. */}}
{{- define "leasehold.flags" -}}
allow-skip-tls-verify: set vault.allowSkipTLSVerify
allowed-vault-addrs: set vault.allowedAddresses
default-audience: set vault.audience
http-addr: the probes use :8080
journal-on-disk: set journalOnDisk
kubeconfig: the provider uses its service account
log-format: set provider.logFormat
log-level: set provider.logLevel
mount-timeout: set provider.mountTimeout
node-name: Kubernetes sets it, by NODE_NAME
pods-dir: set driver.kubeletRootDir
provider-name: set provider.name
providers-dir: set driver.providersDir
publish: set provider.publish
state-dir: set stateDir
tls-dir: set vault.tlsDir
token-requests: set provider.tokenRequests.enabled
vault-addr: set vault.address
vault-mount: set vault.authPath
vault-namespace: set vault.namespace
vault-tls-ca-cert: set vault.tls.caSecret or vault.tls.caConfigMap
vault-tls-client-cert: set vault.tls.clientSecret
vault-tls-client-key: set vault.tls.clientSecret
vault-tls-server-name: set vault.tls.serverName
vault-tls-skip-verify: set vault.tls.skipVerify
version: the provider would print its version and end
{{- end }}

{{/* The same for the webhook. */}}
{{- define "leasehold.webhook.flags" -}}
allow-proxy: set webhook.allowProxy
allow-skip-tls-verify: set vault.allowSkipTLSVerify
allowed-vault-addrs: set vault.allowedAddresses
certificate-life: set webhook.certificateLife
class-grace: set webhook.classGrace
default-audience: set vault.audience
default-role: set webhook.defaultRole
default-template: set webhook.defaultTemplate
drain: the pod's time to end is made for it
http-addr: the probes use :8080
https-addr: the Service uses :9443
identity: Kubernetes sets it, by POD_NAME
impossible: set webhook.impossible
kubeconfig: the webhook uses its service account
lease: the Lease is the chart's
log-format: set webhook.logFormat
log-level: set webhook.logLevel
mutating-configuration: the configuration is the chart's
namespace: Kubernetes sets it, by POD_NAMESPACE
permissions: set webhook.permissions
provider-name: set provider.name
secret: the Secret is the chart's
service: the Service is the chart's
tls-dir: set vault.tlsDir
validating-configuration: the configuration is the chart's
vault-addr: set vault.address
vault-mount: set vault.authPath
vault-namespace: set vault.namespace
version: the webhook would print its version and end
{{- end }}
