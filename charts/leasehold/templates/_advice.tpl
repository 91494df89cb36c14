{{/* What an operator has to do before pods can mount: a list of sentences, in JSON as all lists between templates are.
The argument is a map of what there is, so that this can be tested without a cluster; what cannot be seen gives no
advice:

  Values, Release   the chart's
  csiDriver         the CSIDriver secrets-store.csi.k8s.io, empty if there is none
  daemonSets        all DaemonSets
  namespace         the release's namespace, empty if there is none yet
*/}}
{{- define "leasehold.advice" -}}
{{- $drivers := include "leasehold.drivers" .daemonSets | fromJsonArray -}}
{{- $cluster := merge (dict "drivers" $drivers) . -}}
{{- $advice := list -}}
{{- if .csiDriver -}}
{{- $advice = concat $advice (include "leasehold.advice.driver" $cluster | fromJsonArray) -}}
{{- $advice = concat $advice (include "leasehold.advice.directories" $cluster | fromJsonArray) -}}
{{- else -}}
{{- $advice = append $advice (include "leasehold.advice.noDriver" .) -}}
{{- end -}}
{{- $advice = concat $advice (include "leasehold.advice.namespace" . | fromJsonArray) -}}
{{- toJson $advice -}}
{{- end }}

{{/* The flags of each of the driver's DaemonSets, as a list of maps. "pods" is added: which of kubelet's directories it
mounts. The driver is known by its flag --provider-volume. */}}
{{- define "leasehold.drivers" -}}
{{- $drivers := list -}}
{{- range $daemonSet := . -}}
{{- range $daemonSet.spec.template.spec.containers -}}
{{- $flags := dict -}}
{{- range .args -}}
{{- $flag := splitn "=" 2 (trimPrefix "-" (trimPrefix "-" .)) -}}
{{- $_ := set $flags $flag._0 ($flag._1 | default "true") -}}
{{- end -}}
{{- if hasKey $flags "provider-volume" -}}
{{- range $daemonSet.spec.template.spec.volumes -}}
{{- $path := dig "hostPath" "path" "" . -}}
{{- if hasSuffix "/pods" $path }}{{ $_ := set $flags "pods" $path }}{{ end -}}
{{- end -}}
{{- $drivers = append $drivers $flags -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $drivers -}}
{{- end }}

{{- define "leasehold.advice.noDriver" -}}
The Secrets Store CSI driver is not installed: no pod can mount anything yet. Its documentation tells how to add its
   repository, https://secrets-store-csi-driver.sigs.k8s.io/getting-started/installation.html. Then:

     helm install csi-secrets-store secrets-store-csi-driver/secrets-store-csi-driver --namespace kube-system \
       --set 'tokenRequests[0].audience={{ .Values.vault.audience }}' \
       --set enableSecretRotation=true --set rotationPollInterval=2m
{{- end }}

{{/* Whether the driver asks for tokens and rotates as far as the provider needs it, and the command to mend its release. */}}
{{- define "leasehold.advice.driver" -}}
{{- $audience := .Values.vault.audience -}}
{{- $requests := dig "spec" "tokenRequests" list .csiDriver | default list -}}
{{- $faults := list -}}
{{- $settings := list -}}
{{- $conditions := list -}}

{{- $asks := false -}}
{{- range $requests }}{{ $asks = or $asks (eq $audience (.audience | default "")) }}{{ end -}}
{{- if not $asks -}}
{{- $faults = append $faults (printf
  "The driver asks for no service account token of audience %q: no pod can log in to Vault." $audience) -}}
{{- /* Helm replaces a list as a whole: the new one repeats what is there. */ -}}
{{- $list := append $requests (dict "audience" $audience) | toJson -}}
{{- $settings = append $settings (printf "--set-json 'tokenRequests=%s'" $list) -}}
{{- $conditions = append $conditions (printf "spec.tokenRequests of the CSIDriver is %s" $list) -}}
{{- end -}}

{{- $rotates := dig "spec" "requiresRepublish" false .csiDriver -}}
{{- $slow := "" -}}
{{- range .drivers -}}
{{- $rotates = and $rotates (eq "true" (get . "enable-secret-rotation")) -}}
{{- $interval := get . "rotation-poll-interval" | default "2m" -}}
{{- if gt (include "leasehold.seconds" $interval | int) 120 }}{{ $slow = $interval }}{{ end -}}
{{- end -}}
{{- /* What is lost without polls depends on what the provider may do by itself. */ -}}
{{- $alone := and .Values.provider.publish .Values.provider.tokenRequests.enabled -}}
{{- $suffices := or $rotates $alone -}}
{{- $slow = ternary $slow "" $rotates -}}
{{- if not $suffices -}}
{{- if .Values.provider.publish -}}
{{- $faults = append $faults (join "\n   " (list
  "The driver's rotation is off, and provider.tokenRequests.enabled is false: nobody brings a token to log in anew."
  "Running pods keep getting new credentials until their Vault token reaches its maximum TTL; then the credentials end."
  "An Event on the pod says so before. A Vault role with token_period has no such end.")) -}}
{{- else -}}
{{- $faults = append $faults
  "The driver's rotation is off, and provider.publish is false: a running pod never gets new credentials." -}}
{{- end -}}
{{- else if $slow -}}
{{- $faults = append $faults (printf
  "The driver's rotation interval of %s is too long, 2m is the most: a pod may start with an empty volume." $slow) -}}
{{- end -}}
{{- if or $slow (not $suffices) -}}
{{- $settings = append $settings "--set enableSecretRotation=true --set rotationPollInterval=2m" -}}
{{- $conditions = append $conditions "spec.requiresRepublish of the CSIDriver is true" -}}
{{- $conditions = append $conditions "the driver has --enable-secret-rotation=true and --rotation-poll-interval=2m" -}}
{{- end -}}

{{- /* Helm leaves the driver's release in annotations, and its chart the version in a label. */ -}}
{{- $annotations := dig "metadata" "annotations" dict .csiDriver | default dict -}}
{{- $labels := dig "metadata" "labels" dict .csiDriver | default dict -}}
{{- $release := get $annotations "meta.helm.sh/release-name" -}}
{{- if not $faults -}}
[]
{{- else if $release -}}
{{- $command := printf "helm upgrade %s secrets-store-csi-driver/secrets-store-csi-driver --namespace %s --reuse-values"
  $release (get $annotations "meta.helm.sh/release-namespace") -}}
{{- with get $labels "app.kubernetes.io/version" }}{{ $command = printf "%s --version %s" $command . }}{{ end -}}
{{- list (printf "%s\n\n     %s" (join "\n   " $faults) (join " \\\n       " (prepend $settings $command))) | toJson -}}
{{- else -}}
{{- list (printf "%s\n   Change the driver's manifests so that\n     * %s"
  (join "\n   " $faults) (join "\n     * " $conditions)) | toJson -}}
{{- end -}}
{{- end }}

{{/* Whether the driver and this chart speak of the same directories. */}}
{{- define "leasehold.advice.directories" -}}
{{- $advice := list -}}
{{- $providersDir := .Values.driver.providersDir -}}
{{- $root := .Values.driver.kubeletRootDir -}}
{{- range .drivers -}}
{{- $dirs := compact (prepend (splitList "," (get . "additional-provider-volume-paths")) (get . "provider-volume")) -}}
{{- if not (has $providersDir $dirs) -}}
{{- $advice = append $advice (printf
  "The driver looks for providers in %s, not in %s: set driver.providersDir." (join " and " $dirs) $providersDir) -}}
{{- end -}}
{{- with get . "pods" | trimSuffix "/pods" -}}
{{- if ne . $root -}}
{{- $advice = append $advice (printf
  "The driver was installed for a kubelet with the root %s, not %s: set driver.kubeletRootDir." . $root) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson (uniq $advice) -}}
{{- end }}

{{/* Whether the namespace lets the provider's pods in, which mount directories of the node. */}}
{{- define "leasehold.advice.namespace" -}}
{{- $level := dig "metadata" "labels" "pod-security.kubernetes.io/enforce" "privileged" .namespace -}}
{{- if eq $level "privileged" -}}
[]
{{- else -}}
{{- $fault := printf "The namespace enforces pod security level %q, which refuses directories of the node:" $level -}}
{{- $cure := printf "kubectl label --overwrite namespace %s pod-security.kubernetes.io/enforce=privileged"
  .Release.Namespace -}}
{{- list (printf "%s\n\n     %s" $fault $cure) | toJson -}}
{{- end -}}
{{- end }}

{{/* What to do about the values themselves, as such a list. */}}
{{- define "leasehold.advice.values" -}}
{{- if or .vault.address .vault.allowedAddresses -}}
[]
{{- else -}}
["Classes may send their pods' tokens to any address: set vault.address or vault.allowedAddresses."]
{{- end -}}
{{- end }}
