#!/usr/bin/env bats
# What the provider may do, as the live process and the live cluster show it.

load lib/all

@test "the provider's process has no capability, no way to gain any, and a seccomp filter" {
	pid=$(provider_pid)
	status=$(on_node 'cat "/proc/$1/status"' "$pid")
	for set in CapInh CapPrm CapEff CapBnd CapAmb; do
		contains "/proc/PID/status" "$status" "$set:"$'\t'"0000000000000000"
	done
	contains "/proc/PID/status" "$status" $'NoNewPrivs:\t1' $'Seccomp:\t2'
}

@test "the provider's pod has a read-only root, no service account token, and nothing of the host but two directories" {
	pod=$(NS=$SYSTEM get "pods/$(only_provider)")
	facts=$(jq -c '.spec as $spec | {
		host: [$spec.hostNetwork // false, $spec.hostPID // false, $spec.hostIPC // false],
		privileged: [$spec.containers[].securityContext.privileged // false],
		readOnly: [$spec.containers[].securityContext.readOnlyRootFilesystem],
		priority: $spec.priorityClassName,
		tokens: [$spec.volumes[] | select(.projected)] | length,
		paths: [$spec.volumes[].hostPath.path // empty] | sort}' <<<"$pod")
	same "facts of the pod" "$facts" "$(jq -cn '{
		host: [false, false, false], privileged: [false], readOnly: [true], priority: "system-node-critical", tokens: 0,
		paths: ["/run/leasehold", "/var/run/secrets-store-csi-providers"]}')"
}

@test "the provider's service account may do what every service account may, and nothing more" {
	account=$(NS=$SYSTEM get "pods/$(only_provider)" | jq -r .spec.serviceAccountName)
	unlike "the service account" "$account" default
	for namespace in "$NS" kube-system "$SYSTEM"; do
		same "what it may do in $namespace" "$(rights "$SYSTEM:$account" "$namespace")" "$(rights "$SYSTEM:nobody" "$namespace")"
	done
	for right in "get secrets" "list secrets" "create serviceaccounts/token" "get pods" "create events"; do
		# shellcheck disable=SC2086 # two words
		run kubectl auth can-i $right -A --as="system:serviceaccount:$SYSTEM:$account"
		same "may it $right" "$output" no
	done
}
rights() {
	kubectl auth can-i --list -n "$2" --as="system:serviceaccount:$1" \
		--as-group=system:serviceaccounts --as-group=system:authenticated | sort
}

@test "only root can open the provider's socket and its state" {
	same "the socket" "$(on_node 'stat -c "%F %a %u:%g" /host/run/secrets-store-csi-providers/vault.sock')" "socket 600 0:0"
	# kubelet has made the directory, and lets anybody look into it.
	same "the state directory" "$(on_node 'stat -c "%F %a %u:%g" /host/run/leasehold')" "directory 755 0:0"
	same "the lock" "$(on_node 'stat -c "%a %u:%g" /host/run/leasehold/vault.lock')" "600 0:0"
}

@test "a class cannot send its pods' tokens to another address" {
	grant ssrf
	credentials ssrf | class ssrf '.spec.parameters.vaultAddress = "https://10.96.0.1:443"'
	pod ssrf ssrf
	told 30 ssrf "InvalidArgument" "https://10.96.0.1:443" "is outside the operator's policy"
}
