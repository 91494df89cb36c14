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

@test "the provider's pod has a read-only root, one token of its own, and nothing of the host but three directories" {
	pod=$(NS=$SYSTEM get "pods/$(only_provider)")
	facts=$(jq -c '.spec as $spec | {
		host: [$spec.hostNetwork // false, $spec.hostPID // false, $spec.hostIPC // false],
		privileged: [$spec.containers[].securityContext.privileged // false],
		readOnly: [$spec.containers[].securityContext.readOnlyRootFilesystem],
		priority: $spec.priorityClassName,
		tokens: [$spec.volumes[].projected.sources[]?.serviceAccountToken | values | .path],
		writable: [$spec.containers[].volumeMounts[] | select(.readOnly != true) | .name] | sort,
		paths: [$spec.volumes[].hostPath.path // empty] | sort}' <<<"$pod")
	same "facts of the pod" "$facts" "$(jq -cn --arg pods "$E2E_KUBELET_ROOT/pods" '{
		host: [false, false, false], privileged: [false], readOnly: [true], priority: "system-node-critical", tokens: ["token"],
		writable: ["pods", "providers", "state"],
		paths: ["/run/leasehold", $pods, "/var/run/secrets-store-csi-providers"] | sort}')"
}

@test "the provider's service account may watch pods and make events, and nothing more" {
	account=$(NS=$SYSTEM get "pods/$(only_provider)" | jq -r .spec.serviceAccountName)
	unlike "the service account" "$account" default
	own=$(printf '%s\n' 'events [] [] [create patch]' 'pods [] [] [get list watch]')
	for namespace in "$NS" kube-system "$SYSTEM"; do
		same "what it may do in $namespace beyond what every service account may" \
			"$(LC_ALL=C comm -23 <(rights "$SYSTEM:$account" "$namespace") <(rights "$SYSTEM:nobody" "$namespace"))" "$own"
	done
	for right in "get secrets" "list secrets" "watch secrets" "create serviceaccounts --subresource=token" "create pods" \
		"update pods" "patch pods" "delete pods" "create pods --subresource=exec" "get pods --subresource=log" "list events" \
		"delete events" "get configmaps" "get nodes" "get nodes --subresource=proxy"; do
		# shellcheck disable=SC2086 # several words
		run kubectl auth can-i $right -A --as="system:serviceaccount:$SYSTEM:$account"
		same "may it $right" "$output" no
	done
}
rights() {
	kubectl auth can-i --list --no-headers -n "$2" --as="system:serviceaccount:$1" \
		--as-group=system:serviceaccounts --as-group=system:authenticated | tr -s ' ' | sed 's/ $//' | LC_ALL=C sort
}

@test "only root can open the provider's sockets and its state" {
	same "the socket" "$(on_node 'stat -c "%F %a %u:%g" /host/run/secrets-store-csi-providers/vault.sock')" "socket 600 0:0"
	# kubelet has made the directory, and lets anybody look into it.
	same "the state directory" "$(on_node 'stat -c "%F %a %u:%g" /host/run/leasehold')" "directory 755 0:0"
	same "the lock" "$(on_node 'stat -c "%a %u:%g" /host/run/leasehold/vault.lock')" "600 0:0"
	same "the journal's directory" "$(on_node 'stat -c "%F %a %u:%g" /host/run/leasehold/vault')" "directory 700 0:0"
	same "the journal's file system" "$(on_node 'stat -f -c %T /host/run/leasehold/vault')" tmpfs
	same "the socket of \"provider status\"" "$(on_node 'stat -c "%F %a %u:%g" /host/run/leasehold/vault/status.sock')" "socket 600 0:0"
}

@test "provider status shows what a pod holds, and no secret" {
	grant status
	credentials status | class status
	pod status status
	starts 60 status
	said=$(kubectl exec "$(only_provider)" -n "$SYSTEM" -- /provider status)
	contains "provider status" "$said" "POD " "$NS/status " " secrets " "database/creds/status" " held " "renew in "
	[[ $said != *"$(read_file status db/password)"* ]] || fail "provider status shows the password"
	state=$(kubectl exec "$(only_provider)" -n "$SYSTEM" -- /provider status -o json |
		jq -c --arg namespace "$NS" '[.[] | select(.namespace == $namespace and .pod == "status") | .items[] | [.kind, .state]]')
	same "provider status -o json" "$state" '[["token","held"],["lease","held"]]'
}

@test "a class cannot send its pods' tokens to another address" {
	grant ssrf
	credentials ssrf | class ssrf '.spec.parameters.vaultAddress = "https://10.96.0.1:443"'
	pod ssrf ssrf
	told 30 ssrf "InvalidArgument" "https://10.96.0.1:443" "is outside the operator's policy"
}
