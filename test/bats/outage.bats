#!/usr/bin/env bats
# Outages with the driver's rotation on, at the driver's own interval of two minutes: a directory that kubelet kept would be
# taken for a fresh mount in each of its first tries.

load lib/all
load lib/outage

setup_file() { driver_set enableSecretRotation=true rotationPollInterval=2m; }
teardown_file() { driver_reset; }
teardown() { everything_is_back; }

@test "rotation on: Vault is down when pods are made; they start by themselves, never without their secrets" {
	vault_is_down on-vault
}

@test "rotation on: the provider is absent for a minute; pods wait, and never start without their secrets" {
	provider_is_absent on-prov 60
}
