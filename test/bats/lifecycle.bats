#!/usr/bin/env bats
# What a volume holds lives on while its pod does: across a restart of the provider, when somebody takes it away in Vault, and
# when its class changes. And whoever runs the cluster can see it.

load lib/all

@test "the provider is killed and started with fifty volumes: no login, no new lease, the same bytes, and all is renewed in time" {
	quiet
	grant fifty
	credentials_last fifty 90s 2h
	# The driver notes versions by pod and class: five volumes of one class would have one note.
	for i in 1 2 3 4 5; do credentials fifty | class "fifty-$i" '.spec.parameters.roleName = "fifty"'; done
	names=(fifty-{a,b,c,d,e,f,g,h,i,j})
	for name in "${names[@]}"; do
		pod "$name" fifty-1 'reduce range(2; 6) as $i (.; .spec.volumes += [volume("secrets\($i)"; "fifty-\($i)")] |
			.spec.containers[0].volumeMounts += [mount("secrets\($i)")])'
	done
	starts 120 "${names[@]}"
	has_users fifty 50
	eventually 30 "the driver has noted all versions" has_versions 50
	users=$(users fifty) leases=$(leases fifty) tokens=$(tokens fifty) versions=$(versions) files=$(digests "${names[@]}")
	same "leases and tokens" "$(count <<<"$leases") $(count <<<"$tokens")" "50 50"

	restarts=$(provider_restarts)
	kill_provider
	killed=$(now)
	eventually 60 "the provider runs again" started_again "$restarts"
	# Every volume is polled in turn.
	eventually 60 "each volume was polled twice" mounts_reach 100
	say "killed with 50 volumes; each was polled twice $(since "$killed") s later"
	same "logins and reads since then" \
		"$(metric 'vault_request_duration_seconds_count{operation="login"}') $(metric 'vault_request_duration_seconds_count{operation="read"}')" "0 0"
	same "volumes held" "$(metric volumes)" 50
	[[ $(digests "${names[@]}") == "$files" ]] || fail "files have changed"
	[[ $(versions) == "$versions" ]] || fail "versions have changed"

	eventually 90 "each user has been prolonged since the kill" prolonged "$killed" 90
	same "database users" "$(users fifty)" "$users"
	[[ $(leases fifty) == "$leases" ]] || fail "the leases are others"
	[[ $(tokens fifty) == "$tokens" ]] || fail "the tokens are others"
	[[ $(digests "${names[@]}") == "$files" ]] || fail "files have changed"
	same "logins since then" "$(metric 'vault_request_duration_seconds_count{operation="login"}')" 0
	for directory in /secrets /secrets5; do queries fifty-a "$directory" >/dev/null; done
	kept "${names[@]}"
}
# digests POD...: of every file of every volume, and which directory holds them.
digests() {
	local name
	for name; do
		in_pod "$name" sh -c 'for volume in /secrets*; do
			echo "$0 $volume $(readlink "$volume/..data") $(cat "$volume/db/username" "$volume/db/password" | sha256sum)"
		done' "$name" || return
	done
}
# versions: which version of which object the driver has noted for each pod.
versions() { get secretproviderclasspodstatuses | jq -r '.items[] | "\(.metadata.name) \(.status.objects)"' | sort; }
has_versions() { same "pod statuses with versions" "$(versions | grep -c '"version"')" "$1"; }
# prolonged BEGAN SECONDS: every user of "fifty" is valid for longer than what was granted before BEGAN could make it.
prolonged() {
	same "users that are not" "$(psql -XAtc "select count(*) from pg_roles where rolname like 'v-%-fifty-%'
		and rolvaliduntil < to_timestamp($1 + $2)")" 0
}

@test "a token and a lease are revoked behind our back: the pods get new credentials, which work" {
	quiet
	for role in lc-token lc-lease; do
		grant "$role"
		credentials_last "$role" 12s 2h
		credentials "$role" | class "$role"
		pod "$role" "$role"
	done
	vault PUT auth/kubernetes/role/lc-token '{"token_ttl": "12s"}'
	starts 60 lc-token lc-lease
	token=$(queries lc-token) lease=$(queries lc-lease)
	vault PUT auth/token/revoke-accessor "$(jq -n --arg accessor "$(tokens lc-token)" '{accessor: $accessor}')"
	vault PUT sys/leases/revoke "$(jq -n --arg id "database/creds/lc-lease/$(leases lc-lease)" '{lease_id: $id, sync: true}')"
	began=$(now)
	eventually 30 "lc-token works as another user" works_anew lc-token "$token"
	say "the token was replaced after $(since "$began") s"
	eventually 30 "lc-lease works as another user" works_anew lc-lease "$lease"
	say "the lease was replaced after $(since "$began") s, at a time to live of 12 s"
	has_users lc-token 1
	has_users lc-lease 1
	kept lc-token lc-lease
}
# works_anew POD OLDUSER: the pod logs in to PostgreSQL as another user.
works_anew() {
	local user
	user=$(queries "$1") && unlike "user of $1" "$user" "$2"
}

@test "a class that changes is applied at the next poll, and what it still asks for stays as it is" {
	quiet
	grant lc-class
	vault PUT kv1/lc-class '{"word": "open sesame 6e2d"}'
	credentials lc-class | class lc-class
	pod lc-class lc-class
	starts 60 lc-class
	user=$(queries lc-class)
	{
		credentials lc-class
		echo '- {objectName: more/word, secretPath: kv1/lc-class, secretKey: word}'
	} | class lc-class
	eventually 60 "the file of the added object is there" reads lc-class more/word "open sesame 6e2d"
	same "who the pod is" "$(queries lc-class)" "$user"
	credentials lc-class | class lc-class
	eventually 60 "the file of the removed object is gone" has_no_file lc-class more/word
	same "who the pod is" "$(queries lc-class)" "$user"
	has_users lc-class 1
	kept lc-class
}
reads() { [[ $(read_file "$1" "$2") == "$3" ]]; }
has_no_file() { in_pod "$1" sh -c '! test -e "/secrets/$1"' sh "$2"; }

@test "a class is deleted: what its pods have is renewed and replaced all the same" {
	quiet
	grant lc-gone
	credentials_last lc-gone 8s 12s
	credentials lc-gone | class lc-gone
	pod lc-gone lc-gone
	starts 60 lc-gone
	delete secretproviderclasses/lc-gone
	user=$(queries lc-gone)
	for time in first second; do
		eventually 40 "its credentials were replaced for the $time time" works_anew lc-gone "$user"
		user=$(queries lc-gone)
	done
	kept lc-gone
}

@test "provider status tells of every volume what it holds and what comes next, and no secret" {
	quiet
	grant lc-seen
	credentials lc-seen | class lc-seen
	pods lc-seen lc-seen-a lc-seen-b
	starts 60 lc-seen-a lc-seen-b
	table=$(kubectl exec -n "$SYSTEM" "$(only_provider)" -- /provider status)
	for name in lc-seen-a lc-seen-b; do
		contains "provider status" "$table" "$name" "$(tokens lc-seen | head -n 1)"
		[[ $table != *"$(read_file "$name" db/password)"* ]] || fail "provider status shows a password"
	done
	contains "provider status" "$table" "$NS" database/creds/lc-seen token lease held renew
	[[ $table != *hvs.* ]] || fail "provider status shows a token"
	# A token and a lease of each.
	eventually 10 "the metrics tell the same" tell volumes 2 'leases{state="held"}' 4 'leases{state="due"}' 0
	say "$(head -n 3 <<<"$table" | tr '\n' '|')"
}
# tell METRIC VALUE...
tell() {
	while (($# > 0)); do
		same "metric $1" "$(metric "$1")" "$2" || return
		shift 2
	done
}
