#!/usr/bin/env bash
# What stands before the first case. All of it may be there already: a second run finds it.

# check_environment reports everything that is missing at once.
check_environment() {
	local name nodes missing=()
	for name in KUBECONFIG KUBERNETES_API VAULT_ADDR VAULT_TOKEN PGHOST PGUSER PGPASSWORD E2E_APP_IMAGE E2E_PROVIDER_IMAGE E2E_WEBHOOK_IMAGE; do
		[[ -n ${!name:-} ]] || missing+=("the variable $name")
	done
	for name in bats curl helm jq kubectl openssl psql; do
		command -v "$name" >/dev/null || missing+=("the command $name")
	done
	# What cases count, kill and replace is one provider's. A cluster that does not answer is told of later.
	if [[ -n ${KUBECONFIG:-} ]] && nodes=$(kubectl get nodes --output=name --request-timeout=30s 2>/dev/null) &&
		[[ $nodes == *$'\n'* ]]; then
		missing+=("a cluster of one node: this one has $(count <<<"$nodes")")
	fi
	((${#missing[@]} == 0)) || fail "The end-to-end suite needs a cluster and what lies around it. Missing:" "${missing[@]/#/  }" \
		"\"build/bin/cluster run -- test/bats/run\" brings all of it."
}

set_up() {
	namespace "$NS"
	namespace "$OTHER"
	service_account app
	NS=$OTHER service_account app
	vault_engines
	vault_kubernetes
	quiet
	install_provider
}

vault_engines() {
	enable mounts kv1 '{"type": "kv", "options": {"version": "1"}}'
	enable mounts kv '{"type": "kv", "options": {"version": "2"}}'
	# Version 2 prepares its storage after the answer, and refuses everything until then.
	eventually 30 "KV version 2 is ready" vault GET kv/config
	enable mounts database '{"type": "database"}'
	vault PUT database/config/postgres "$(jq -n --arg at "$PGHOST:${PGPORT:-5432}/${PGDATABASE:-postgres}" \
		--arg mode "${PGSSLMODE:-disable}" '{
		plugin_name: "postgresql-database-plugin", allowed_roles: ["*"], max_open_connections: 16,
		connection_url: "postgresql://{{username}}:{{password}}@\($at)?sslmode=\($mode)",
		username: env.PGUSER, password: env.PGPASSWORD}')"
	enable mounts pki '{"type": "pki", "config": {"max_lease_ttl": "24h"}}'
	# A 404 says that there is no issuer yet.
	vault LIST pki/issuers >/dev/null 2>&1 ||
		vault PUT pki/root/generate/internal '{"common_name": "e2e", "key_type": "ec", "key_bits": 256, "ttl": "24h"}' >/dev/null
	vault PUT pki/roles/web '{"allow_any_name": true, "key_type": "ec", "key_bits": 256, "max_ttl": "12h"}' >/dev/null
}

# vault_kubernetes lets Vault ask the API server, by a TokenReview, whose token it got.
vault_kubernetes() {
	service_account vault-reviewer
	jq -n --arg namespace "$NS" '{apiVersion: "rbac.authorization.k8s.io/v1", kind: "ClusterRoleBinding",
		metadata: {name: "leasehold-e2e-vault-reviewer"},
		roleRef: {apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "system:auth-delegator"},
		subjects: [{kind: "ServiceAccount", name: "vault-reviewer", namespace: $namespace}]}' | apply clusterrolebindings
	enable auth kubernetes '{"type": "kubernetes"}'
	vault PUT auth/kubernetes/config "$(kubernetes_config)"
}
