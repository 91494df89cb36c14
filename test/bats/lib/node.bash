#!/usr/bin/env bash
# The node as its administrator sees it, on any cluster: from a privileged pod in the host's process namespace.

# on_node SCRIPT [ARGUMENTS...]: runs a shell script there; the node's /run is /host/run.
on_node() {
	# shellcheck disable=SC2034 # for the functions that it calls
	local NS=$SYSTEM
	if gone pods/node; then
		jq -n --arg image "$E2E_APP_IMAGE" '{
			apiVersion: "v1", kind: "Pod", metadata: {name: "node"},
			spec: {
				hostPID: true, automountServiceAccountToken: false, terminationGracePeriodSeconds: 0,
				containers: [{
					name: "node", image: $image, imagePullPolicy: "IfNotPresent", securityContext: {privileged: true, runAsUser: 0},
					command: ["sleep", "86400"],
					volumeMounts: [{name: "run", mountPath: "/host/run", readOnly: true}]
				}],
				volumes: [{name: "run", hostPath: {path: "/run"}}]
			}
		}' | create pods
	fi
	eventually 30 "the pod that sees the node is ready" ready node || return
	kubectl exec node -n "$SYSTEM" -- sh -c "$1" sh "${@:2}"
}

# processes NAME UID...: the ids of the processes of that name in the pods, in the node's own count, one a line. The cgroup of a
# process bears the pod's UID, with - or _.
processes() {
	local name=$1 uids
	uids=$(IFS='|' && echo "${*:2}")
	on_node 'for process in $(grep -lE "$1" /proc/[0-9]*/cgroup 2>/dev/null); do
		pid=${process#/proc/} pid=${pid%/cgroup}
		if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ]; then echo "$pid"; fi
	done' "${uids//-/[-_]}" "$name"
}

# provider_pid: the process id of the provider, in the node's own count.
provider_pid() {
	local uid
	uid=$(NS=$SYSTEM get "pods/$(only_provider)" | jq -r .metadata.uid) && processes provider "$uid"
}

# kill_provider_at NUMBER: waits until so many more of the driver's volumes are mounted on the node than now, and then ends the
# provider by SIGKILL, as for want of memory. Its container is started again in the same pod. Prints how many it was then.
kill_provider_at() {
	local pid
	pid=$(provider_pid) && [[ $pid =~ ^[0-9]+$ ]] || fail "want the provider's one process, got: ${pid:-none}" || return
	on_node 'mounted() { grep -c "kubernetes.io~csi" /proc/1/mounts; }
		at=$(($(mounted) + $2))
		echo ready
		for _ in $(seq 6000); do
			if [ "$(mounted)" -ge "$at" ]; then
				kill -KILL "$1"
				exec echo "$(($(mounted) - at + $2))"
			fi
			sleep 0.01
		done
		exit 1' "$pid" "$1"
}

# kill_provider: ends the provider by SIGKILL. Its container is started again in the same pod.
kill_provider() {
	local pid
	pid=$(provider_pid) && [[ $pid =~ ^[0-9]+$ ]] || fail "want the provider's one process, got: ${pid:-none}" || return
	on_node 'kill -KILL "$1"' "$pid"
}

# on_bed stop|start|kill|restart PART: controls a part of our own test bed, such as vault or kubelet. E2E_NODE is a command
# with its first arguments.
on_bed() {
	local command
	read -ra command <<<"$E2E_NODE"
	"${command[@]}" "$@"
}

# vault_is_back: whatever a case that has failed left behind, Vault answers.
vault_is_back() { [[ -z ${E2E_NODE:-} ]] || vault GET sys/health >/dev/null 2>&1 || on_bed start vault; }
