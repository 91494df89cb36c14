#!/usr/bin/env bash
# What must hold while Vault or the provider is away, whatever the driver's rotation is. The danger: kubelet takes some errors
# of a first mount for "maybe done" and keeps the directory. The driver's next call, with rotation on, then sees a directory
# that was just made, skips the provider and reports success, and the pod starts on an empty volume. Every test pod looks for
# its files at its first instant; see app.sh.

# vault_is_down CASE: pods are made while Vault is down, fail several times, and start by themselves.
vault_is_down() {
	needs_node
	grant "$1"
	credentials "$1" | class "$1"
	on_bed stop vault
	pods "$1" "$1-a" "$1-b" "$1-c"
	local name
	for name in "$1-a" "$1-b" "$1-c"; do
		told 30 "$name" "rpc error: code = Internal" "vault is unavailable" "the pod starts by itself once Vault at $VAULT_ADDR answers"
	done
	eventually 60 "kubelet has tried four times" tried "$1-a" 4
	waits "$1-a"
	on_bed start vault
	starts 60 "$1-a" "$1-b" "$1-c"
	has_users "$1" 3
	for name in "$1-a" "$1-b" "$1-c"; do queries "$name" >/dev/null; done
}

# tried POD NUMBER: so often kubelet has reported that the volume's mount failed.
tried() {
	local n
	n=$(get "events?fieldSelector=reason=FailedMount,involvedObject.name=$1" | jq '[.items[].count] | add // 0') &&
		((n >= $2)) || fail "$n times so far"
}

# provider_is_absent CASE SECONDS: pods are made while no provider runs, wait all that time, and start when it is back.
provider_is_absent() {
	grant "$1"
	credentials "$1" | class "$1"
	absent
	pods "$1" "$1-a" "$1-b" "$1-c"
	local name began
	still_waits "$2" "$1-a" "$1-b" "$1-c"
	began=$(now)
	present
	# After a minute kubelet's next try may be another minute away.
	starts 120 "$1-a" "$1-b" "$1-c"
	say "absent for $2 s; $(since "$began") s from its return to the last pod"
	has_users "$1" 3
	for name in "$1-a" "$1-b" "$1-c"; do queries "$name" >/dev/null; done
}

# everything_is_back: whatever a case that failed has left away.
everything_is_back() {
	vault_is_back
	present
	end_case
}
