#!/usr/bin/env bash
# Vault as its administrator configures it. Nothing secret is printed, nor given as an argument, where ps would show it.

# vault METHOD PATH [JSON]: one request as root; prints the answer.
vault() {
	local method=$1 path=$2 body=${3:-} answer data=()
	[[ -z $body ]] || data=(--data-binary @-)
	answer=$(curl -sS --fail-with-body --max-time 60 -X "$method" "${data[@]}" \
		-H @<(printf 'X-Vault-Token: %s\n' "$VAULT_TOKEN") "$VAULT_ADDR/v1/$path" <<<"$body") ||
		fail "vault: $method $path: $(jq -c '.errors? // "no answer"' <<<"${answer:-{\}}" 2>/dev/null)" || return
	printf '%s' "$answer"
}

# enable KIND PATH JSON: mounts an engine (mounts) or a method (auth) unless something is mounted there.
enable() {
	local there
	there=$(vault GET "sys/$1" | jq --arg path "$2/" 'has($path) or (.data | has($path))') || return
	[[ $there == true ]] || vault POST "sys/$1/$2" "$3"
}

# kubernetes_config: what a mount of the Kubernetes method must know to ask the API server, by a TokenReview, whose token it
# got.
kubernetes_config() {
	jq -n --arg host "$KUBERNETES_API" \
		--rawfile ca <(get configmaps/kube-root-ca.crt | jq -j '.data["ca.crt"]') \
		--rawfile token <(kubectl create token vault-reviewer -n "$NS" --duration=24h | tr -d '\n') '{
		kubernetes_host: $host, kubernetes_ca_cert: $ca, token_reviewer_jwt: $token, disable_local_ca_jwt: true}'
}

# grant NAME [SERVICEACCOUNT [NAMESPACE]]: what a case needs from Vault, all of one name: a role of the Kubernetes method for
# that service account, a dynamic database role, and a policy that lets the one read the other, kv1/NAME and kv/data/NAME,
# and issue certificates. PostgreSQL's users bear the name, cut to 8 characters: keep it that short. What an earlier run
# left under it is revoked.
grant() {
	local name=$1 account=${2:-app} namespace=${3:-$NS}
	((${#name} <= 8)) || fail "grant: $name has more than 8 characters" || return
	NS=$namespace service_account "$account"
	vault PUT "sys/leases/revoke-prefix/database/creds/$name" '{"sync": true}'
	vault PUT "sys/policies/acl/$name" "$(jq -n --arg name "$name" '{policy: (
		["database/creds/\($name)", "kv1/\($name)", "kv/data/\($name)", "pki/issue/web"]
		| map("path \"\(.)\" { capabilities = [\"read\", \"update\"] }") | join("\n"))}')"
	vault PUT "database/roles/$name" "$(jq -n '{
		db_name: "postgres", default_ttl: "1h", max_ttl: "2h",
		creation_statements: ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD \u0027{{password}}\u0027 VALID UNTIL \u0027{{expiration}}\u0027"]}')"
	bind "$name" "$account" "$namespace"
}

# bind NAME SERVICEACCOUNT NAMESPACE: writes the role of the Kubernetes method alone, whatever it was before.
bind() {
	vault PUT "auth/kubernetes/role/$1" "$(jq -n --arg name "$1" --arg account "$2" --arg namespace "$3" '{
		bound_service_account_names: [$account], bound_service_account_namespaces: [$namespace], audience: "vault",
		token_policies: [$name], token_ttl: "1h", token_max_ttl: "0s", token_period: "0s"}')"
}

# credentials_last NAME DEFAULT MAX: how long the credentials of the database role last, and how far they can be renewed.
credentials_last() { vault PUT "database/roles/$1" "{\"default_ttl\": \"$2\", \"max_ttl\": \"$3\"}"; }

# login NAME JSON: changes the role of the Kubernetes method.
login() { vault PUT "auth/kubernetes/role/$1" "$2"; }

# leases NAME: the ids of the database role's leases, sorted; nothing when there are none, which Vault says by a 404.
leases() {
	local answer
	answer=$(curl -sS --max-time 60 -X LIST -H @<(printf 'X-Vault-Token: %s\n' "$VAULT_TOKEN") \
		"$VAULT_ADDR/v1/sys/leases/lookup/database/creds/$1") && jq -r '.data.keys[]?' <<<"$answer" | sort
}

# tokens NAME: the accessors of the tokens that logins with the role of the Kubernetes method have gained, sorted.
tokens() {
	local accessor accessors
	accessors=$(vault LIST auth/token/accessors | jq -r '.data.keys[]') || return
	# A token whose lease is not stored yet is revoked by Vault when it is looked up: nobody asks for one that is being made.
	sleep 1
	while read -r accessor; do
		# One that has just ended is none.
		vault PUT auth/token/lookup-accessor "{\"accessor\": \"$accessor\"}" 2>/dev/null |
			jq -r --arg role "$1" '.data | select(.meta.role == $role) | .accessor' || true
	done <<<"$accessors" | sort
}

# returned NAME: nothing is left of what pods gained by the role: no database user, no lease, no token.
returned() {
	local users leases tokens
	users=$(users "$1" | count) && leases=$(leases "$1" | count) && tokens=$(tokens "$1" | count) &&
		same "database users, leases and tokens of $1" "$users $leases $tokens" "0 0 0"
}
