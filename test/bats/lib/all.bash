#!/usr/bin/env bash
# What every test file loads. It makes nothing: see setup.bash for what stands before the first case.

set -o pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
LIB=$ROOT/test/bats/lib
RELEASE=leasehold           # the chart's release
SYSTEM=leasehold-system     # its namespace
SELECTOR=app.kubernetes.io/name=leasehold,app.kubernetes.io/component=provider
WEBHOOK_SELECTOR=app.kubernetes.io/name=leasehold,app.kubernetes.io/component=webhook
DRIVER_RELEASE=csi-secrets-store # in kube-system
DRIVER_SELECTOR=app=secrets-store-csi-driver
CSIDRIVER=secrets-store.csi.k8s.io
NAMESPACE=leasehold-e2e     # the namespace of a case's objects
OTHER=leasehold-e2e-other   # a second namespace of tenants
NS=$NAMESPACE               # where functions look for objects: "NS=$OTHER pod ..." makes one elsewhere
: "${E2E_OUTPUT:=$ROOT/build/e2e}" # where logs and diagnostics go
: "${E2E_KUBELET_ROOT:=/var/lib/kubelet}"
export ROOT LIB RELEASE SYSTEM SELECTOR WEBHOOK_SELECTOR DRIVER_RELEASE DRIVER_SELECTOR CSIDRIVER NAMESPACE OTHER NS E2E_OUTPUT E2E_KUBELET_ROOT

for part in assert cluster vault postgres workloads client provider webhook driver node diagnose; do
	# shellcheck disable=SC1090
	source "$LIB/$part.bash"
done

# The usual end of a case. Files that have more to mend define their own and call this one last.
end_case() {
	if [[ -z ${BATS_TEST_COMPLETED:-} && -z ${BATS_TEST_SKIPPED:-} ]]; then
		keep_diagnostics
	fi
	local NS kinds
	for NS in "$NAMESPACE" "$OTHER"; do
		for kinds in deployments jobs pods secretproviderclasses; do delete "$kinds"; done
	done
}
teardown() { end_case; }
