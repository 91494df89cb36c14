#!/usr/bin/env bash
# The product: its release, its pods and its metrics.

# install_provider [HELM ARGUMENTS...]: installs or upgrades the release by its chart and returns when it is ready.
install_provider() {
	local image=$E2E_PROVIDER_IMAGE ca='' said
	namespace "$SYSTEM"
	if [[ -n ${VAULT_CACERT:-} ]]; then
		ca=vault-ca
		jq -n --arg name "$ca" --rawfile pem "$VAULT_CACERT" '{apiVersion: "v1", kind: "ConfigMap", metadata: {name: $name},
			data: {"ca.crt": $pem}}' | NS=$SYSTEM apply configmaps
	fi
	# Debug is the level at which most is said: the canary searches all of it.
	jq -n --arg repository "${image%:*}" --arg tag "${image##*:}" --arg address "$VAULT_ADDR" --arg ca "$ca" \
		--arg root "$E2E_KUBELET_ROOT" '{
		provider: {image: {repository: $repository, tag: $tag}, logLevel: "debug"},
		vault: {address: $address, tls: {caConfigMap: {name: $ca}}},
		driver: {kubeletRootDir: $root}
	}' >"$E2E_OUTPUT/values.json"
	said=$(helm upgrade --install "$RELEASE" "$ROOT/charts/leasehold" -n "$SYSTEM" -f "$E2E_OUTPUT/values.json" \
		--wait --timeout 90s "$@" 2>&1) || fail "$said" || return
	eventually 60 "the DaemonSet is ready" provider_ready
}
provider_ready() {
	local nodes pods
	nodes=$(NS=$SYSTEM get "daemonsets/$RELEASE-provider" | jq -er '.metadata.generation as $generation | .status |
		select(.observedGeneration == $generation and .desiredNumberScheduled > 0 and
			.numberReady == .desiredNumberScheduled and .updatedNumberScheduled == .desiredNumberScheduled) |
		.desiredNumberScheduled') && pods=$(provider_pods | count) && same "provider pods" "$pods" "$nodes"
}

# notes: what the chart tells the operator of this cluster, by an upgrade that is not done.
notes() {
	local said
	said=$(helm upgrade "$RELEASE" "$ROOT/charts/leasehold" -n "$SYSTEM" -f "$E2E_OUTPUT/values.json" --dry-run=server 2>&1) ||
		fail "$said" || return
	sed -n '/^NOTES:$/,$p' <<<"$said"
}

# provider_pods: their names, one a line; those that are ending too.
provider_pods() { NS=$SYSTEM get "pods?labelSelector=$SELECTOR" | jq -r '.items[].metadata.name'; }

# only_provider: the name of the one pod there is.
only_provider() {
	local names
	names=$(provider_pods) && [[ $names != *$'\n'* && -n $names ]] || fail "want one provider pod, got: ${names:-none}" || return
	echo "$names"
}

# metrics: of all provider pods together, as the API server fetches them.
metrics() {
	local name
	for name in $(provider_pods); do
		NS=$SYSTEM get "pods/$name:8080/proxy/metrics" || return
	done
}

# metric NAME[{LABELS}]: the sum of the metric over its series that have these labels, such as 'releases_total{outcome="ok"}';
# 0 when there is none. Its name goes without "leasehold_".
metric() {
	local text name=leasehold_${1%%\{*} labels=''
	[[ $1 != *\{* ]] || labels=${1#*\{} labels=${labels%\}}
	text=$(metrics) && awk -v name="$name" -v labels="$labels" '
		{ series = $1; sub(/\{.*/, "", series) }
		series == name && (labels == "" || index($0, labels)) { n += $NF } END { print n + 0 }' <<<"$text"
}

# provider_restarts: how often the provider's container was started again.
provider_restarts() { NS=$SYSTEM get "pods/$(only_provider)" | jq '.status.containerStatuses[0].restartCount'; }

# started_again NUMBER: the provider's container has been started again since there were so many restarts, and is ready.
started_again() {
	local restarts
	restarts=$(provider_restarts) && ((restarts > $1)) && provider_ready
}

# mounts: how many Mount calls have succeeded since the provider started.
mounts() {
	local text
	text=$(metrics) && awk '/^leasehold_mount_duration_seconds_count\{code="OK"\}/ { n += $2 } END { print n + 0 }' <<<"$text"
}
mounts_reach() {
	local n
	n=$(mounts) && ((n >= $1)) || fail "$n successful Mounts so far, want $1"
}

# polls_go_on [NUMBER]: so many more Mounts succeed.
polls_go_on() {
	local n
	n=$(mounts) || return
	eventually 60 "${1:-3} polls more" mounts_reach $((n + ${1:-3}))
}

# absent: takes the provider off every node; present brings it back.
absent() {
	NS=$SYSTEM patch "daemonsets/$RELEASE-provider" '{"spec": {"template": {"spec": {"nodeSelector": {"leasehold-e2e": "nowhere"}}}}}'
	eventually 60 "no provider is left" no_provider
}
no_provider() {
	local names
	names=$(provider_pods) && [[ -z $names ]] || fail "$names"
}
present() {
	NS=$SYSTEM patch "daemonsets/$RELEASE-provider" '{"spec": {"template": {"spec": {"nodeSelector": {"leasehold-e2e": null}}}}}'
	eventually 60 "the provider is ready" provider_ready
}
