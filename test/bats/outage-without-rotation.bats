#!/usr/bin/env bats
# Outages with the driver's rotation off, which is its default.

load lib/all
load lib/outage

setup_file() { driver_set enableSecretRotation=false; }
teardown_file() { driver_reset; }
teardown() { everything_is_back; }

@test "rotation off: Vault is down when pods are made; they start by themselves, never without their secrets" {
	vault_is_down offvault
}

@test "rotation off: the provider is absent for a minute; pods wait, and never start without their secrets" {
	provider_is_absent off-prov 60
}

@test "rotation off: a mounted volume is not asked for again, and stays as it is when Vault is down" {
	needs_node
	grant off-run
	credentials off-run | class off-run
	pod off-run off-run
	starts 60 off-run
	before=$(fingerprint off-run) mounted=$(mounts)
	on_bed stop vault
	queries off-run >/dev/null # what the pod holds does not need Vault
	on_bed start vault
	on_bed restart kubelet # which looks at every volume anew
	eventually 60 "kubelet reports the node ready" node_ready
	eventually 60 "kubelet knows the pod again" in_pod off-run true
	[[ $(fingerprint off-run) == "$before" ]] || fail "the files have changed"
	same "successful Mounts" "$(mounts)" "$mounted"
	kept off-run
}
