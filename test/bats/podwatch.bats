#!/usr/bin/env bats
# The unit tests believe a fake API server (internal/podwatch/podwatchtest). Here the same sentences are asked of it and of
# the real one, with no more rights there than the chart gives the provider.

load lib/all

SUITE=$ROOT/build/bin/podwatch.test # made by "make build-contract"
TOKENS=$RELEASE-tokens              # a release of which there are only the account and its rights, with token requests on

setup() {
	umask 077 # of the files that hold tokens
	chart_rights | kubectl apply -f - >/dev/null
}

# chart_rights: the service account and all its rights as the chart has them with token requests on.
chart_rights() {
	helm template "$TOKENS" "$ROOT/charts/leasehold" -n "$SYSTEM" -f "$E2E_OUTPUT/values.json" \
		--set provider.tokenRequests.enabled=true -s templates/serviceaccount.yaml -s templates/rbac.yaml
}

# administrator, kubeconfig_of ACCOUNT: a kubeconfig of the suite's own user, and one with a token of the service account.
administrator() { kubectl config view --raw --minify --flatten -o json; }
kubeconfig_of() {
	administrator |
		jq --rawfile token <(kubectl create token "$1" -n "$SYSTEM" --duration 10m) '
			.users = [{name: "account", user: {token: ($token | rtrimstr("\n"))}}] | .contexts[0].context.user = "account"'
}

@test "the fake API server of the unit tests and the real one agree, with the chart's rights" {
	[[ -x $SUITE ]] || fail "there is no $SUITE: \"make build-contract\" builds it"
	account=$(NS=$SYSTEM get "pods/$(only_provider)" | jq -r .spec.serviceAccountName)
	administrator >"$BATS_TEST_TMPDIR/administrator"
	kubeconfig_of "$account" >"$BATS_TEST_TMPDIR/provider"
	kubeconfig_of "$TOKENS-provider" >"$BATS_TEST_TMPDIR/tokens"
	same "who asks" "$(for name in provider tokens; do
		KUBECONFIG=$BATS_TEST_TMPDIR/$name kubectl auth whoami -o json | jq -r .status.userInfo.username
	done)" "$(printf "system:serviceaccount:$SYSTEM:%s\n" "$account" "$TOKENS-provider")"

	# An API server has to have a past that it has forgotten. That of the test bed is as old as its cluster.
	if [[ -n ${E2E_NODE:-} ]]; then
		on_bed restart kube-apiserver
		eventually 30 "the API server is back" api GET /readyz
	fi
	said=$BATS_TEST_TMPDIR/said
	LEASEHOLD_CONTRACT_REQUIRED=1 LEASEHOLD_CONTRACT_KUBECONFIG=$BATS_TEST_TMPDIR/administrator \
		LEASEHOLD_CONTRACT_PROVIDER_KUBECONFIG=$BATS_TEST_TMPDIR/provider \
		LEASEHOLD_CONTRACT_TOKENS_KUBECONFIG=$BATS_TEST_TMPDIR/tokens \
		"$SUITE" -test.v -test.count=1 -test.timeout=5m -test.run='^TestContract$' >"$said" 2>&1 || fail "$(<"$said")"
	# A suite that is skipped passes too.
	lacks "the suite" "$(<"$said")" "--- SKIP"
	sentences=$(held real "$said")
	unlike "the sentences that hold of the real one" "$sentences" ""
	same "the sentences that hold of the real one" "$sentences" "$(held fake "$said")"
	say "$(count <<<"$sentences") sentences hold of both"
	eventually 60 "the suite has left no namespace" no_namespace
	eventually 60 "the nodes are ready" node_ready
}
# held WHOM FILE: the sentences that hold of "fake" or "real".
held() { sed -n "s|^ *--- PASS: TestContract/$1/\(.*\) (.*|\1|p" "$2" | LC_ALL=C sort; }
no_namespace() {
	local names
	names=$(get namespaces | jq -r '.items[].metadata.name | select(startswith("podwatch-contract-"))') && [[ -z $names ]] ||
		fail "$names"
}

teardown() {
	chart_rights | kubectl delete --ignore-not-found -f - >/dev/null
	end_case
}
