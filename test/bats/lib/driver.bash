#!/usr/bin/env bash
# The Secrets Store CSI driver. Its settings are the cluster's: who changes them changes them back when the file ends.

# driver_set KEY=VALUE...: upgrades the driver's release, and remembers what driver_reset goes back to.
driver_set() {
	local settings=() setting said
	[[ -n ${E2E_DRIVER_CHART:-} ]] || fail "E2E_DRIVER_CHART is empty: these cases change the driver's settings by its chart" || return
	for setting; do settings+=(--set "$setting"); done
	helm list -n kube-system -f "^$DRIVER_RELEASE\$" -o json | jq -r '.[0].revision' >"$BATS_FILE_TMPDIR/driver-revision"
	said=$(helm upgrade "$DRIVER_RELEASE" "$E2E_DRIVER_CHART" -n kube-system --reuse-values "${settings[@]}" \
		--wait --timeout 90s 2>&1) || fail "$said" || return
	eventually 60 "the driver is registered" driver_ready
}
driver_reset() {
	local said
	[[ -s $BATS_FILE_TMPDIR/driver-revision ]] || return 0
	said=$(helm rollback "$DRIVER_RELEASE" "$(<"$BATS_FILE_TMPDIR/driver-revision")" -n kube-system --wait --timeout 90s 2>&1) ||
		fail "$said" || return
	rm "$BATS_FILE_TMPDIR/driver-revision"
	eventually 60 "the driver is registered" driver_ready
}

# driver_ready: every node's kubelet knows the driver, and no driver pod is on its way.
driver_ready() {
	NS=kube-system get "daemonsets?labelSelector=$DRIVER_SELECTOR" | jq -e '[.items[].status] |
		length > 0 and all(.[]; .desiredNumberScheduled > 0 and .numberReady == .desiredNumberScheduled and
		.updatedNumberScheduled == .desiredNumberScheduled)' >/dev/null &&
		NS=kube-system get "pods?labelSelector=$DRIVER_SELECTOR" |
		jq -e 'all(.items[]; .metadata.deletionTimestamp == null)' >/dev/null &&
		get csinodes | jq -e --arg name "$CSIDRIVER" 'all(.items[]; any(.spec.drivers[]?; .name == $name))' >/dev/null
}
