#!/usr/bin/env bats
# What a pod was given ends with the pod, in whatever way that ends: its database user is gone, and Vault knows no lease and no
# token of it. The time from the pod's end to the user's is measured from outside: the API server tells of the one (the pod is
# deleted, or its last container has ended), PostgreSQL of the other. Where something that releasing takes was away, it
# counts from when that was back.
#
#	RELEASE_PODS    how many pods end in each of the plain ways (default: 4)
#	RELEASE_OUTAGE  how many seconds Vault stays sealed (default: 60)

load lib/all

GONE=leasehold-e2e-gone # a namespace that is deleted

setup_file() {
	export WATCH=$BATS_FILE_TMPDIR/watch PODS=$BATS_FILE_TMPDIR/pods USERS=$BATS_FILE_TMPDIR/users TIMES=$BATS_FILE_TMPDIR/times
	export LEAKS=$BATS_FILE_TMPDIR/leaks
	: >"$TIMES"
	: >"$LEAKS"
	watch_users >"$USERS" 3>&- &
	echo $! >"$WATCH"
	watch_pods >"$PODS" 3>&- &
	echo $! >>"$WATCH"
}

teardown_file() {
	# shellcheck disable=SC2046 # one process id a word
	kill $(<"$WATCH")
	say "release $(sort -n "$TIMES" | awk '{ ms[NR] = $1 * 1000 }
		function at(part, n) { n = int(NR * part); if (n < NR * part) n++; return ms[n < 1 ? 1 : n] }
		END { printf "n=%d p50_ms=%.0f p99_ms=%.0f", NR, at(0.5), at(0.99) }') leaked=$(awk '{ n += $1 } END { print n + 0 }' "$LEAKS")"
}

teardown() {
	if [[ -n ${E2E_NODE:-} ]]; then
		for part in postgres kube-apiserver; do on_bed start "$part" >/dev/null 2>&1 || true; done
		vault_is_unsealed || on_bed restart vault || true
	fi
	vault_is_back
	present
	gone "namespaces/$GONE" || delete "namespaces/$GONE"
	end_case
}
vault_is_unsealed() { vault GET sys/seal-status | jq -e '.sealed == false' >/dev/null; }

# watch_pods: until it is ended, prints what the API server tells of this file's pods: seconds, kind of event, name, phase, and
# when it is to end. kubectl asks directly, for its proxy holds back what it has for up to 0.2 s.
watch_pods() {
	# shellcheck disable=SC2046 # one process id a word
	trap 'kill $(jobs -p) 2>/dev/null; exit 0' TERM
	local told='{.type} {.object.metadata.name} {.object.status.phase} {.object.metadata.deletionTimestamp}{"\n"}'
	while :; do
		kubectl get pods -A -l case=release --watch --output-watch-events -o jsonpath="$told" 2>/dev/null |
			while IFS= read -r line; do printf '%s %s\n' "$EPOCHREALTIME" "$line"; done &
		wait
		sleep 0.1
	done
}

# over NAME: when the API server told that the pod was deleted or its containers had all ended, whatever came first, in seconds.
over() {
	local at
	at=$(awk -v name="$1" '$3 == name && ($2 == "DELETED" || $4 == "Succeeded" || $4 == "Failed") { print $1; exit }' "$PODS") &&
		[[ -n $at ]] || fail "pod $1 has not ended" || return
	echo "$at"
}

# tenant NAME [FILTER]: a client that querying tells of; its class is that of its name up to the last dash. There are many, and a
# new connection costs: each queries every EVERY, or every other second.
tenant() { client "$1" "${1%-*}" '.metadata.labels.case = "release" | setting("EVERY"; "'"${EVERY:-2s}"'") | '"${2:-.}"; }

# remember POD...: notes each pod's database user, while it can still tell.
remember() {
	local name user
	for name; do
		user=$(holder "$name") || return
		contains "the user of $name" "$user" v- || return
		echo "$name $user" >>"$BATS_TEST_TMPDIR/holders"
	done
}

# vanishes SECONDS ROLE: everything that the role's pods had is gone within that time; else what is left has leaked.
vanishes() {
	eventually "$1" "nothing is left of $2" returned "$2" || {
		left "$2" >>"$LEAKS"
		return 1
	}
}

# left ROLE: how much is left of what its pods had: of users, leases and tokens the number of which there are most. It is one
# at least: the last may go while they are counted, and who should tell may be away.
left() {
	{
		echo 1
		users "$1" | count || true
		leases "$1" | count || true
		tokens "$1" | count || true
	} | sort -n | tail -n 1
}

# released ROLE [SECONDS [SINCE]]: everything that the role's pods had is gone within that time. Notes how long it took for each
# remembered pod, from its end or from SINCE, whatever is later; and what is left if anything is.
released() {
	local role=$1 seconds=${2:-60} since=${3:-0} name user end gone
	vanishes "$seconds" "$role" || return
	while read -r name user; do
		[[ $user == *"-$role-"* ]] || continue
		end=$(over "$name") && eventually 10 "the watch knows that the user of $name has gone" has_gone "$user" || return
		gone=$(went "$USERS" "$user")
		# A user that goes before its pod is as wrong as one that stays. What we hear of the pod comes a little later, though.
		awk -v end="$end" -v gone="$gone" 'BEGIN { exit !(gone > end - 0.5) }' ||
			fail "the user of $name went at $gone, before the pod's end at $end" || return
		awk -v end="$end" -v since="$since" -v gone="$gone" 'BEGIN { printf "%.3f\n", gone - (end > since ? end : since) }'
	done <"$BATS_TEST_TMPDIR/holders" >"$BATS_TEST_TMPDIR/$role"
	cat "$BATS_TEST_TMPDIR/$role" >>"$TIMES"
	say "$role: $(count <"$BATS_TEST_TMPDIR/$role") pods, released after $(sort -n "$BATS_TEST_TMPDIR/$role" | awk '
		NR == 1 { low = $1 } END { printf "%s to %s s", low, $1 }')"
}

@test "however a pod ends, its database user, its leases and its token end with it, and not before" {
	local n=${RELEASE_PODS:-4} i way ways=(re-del re-evict re-force re-done re-crash) names=()
	quiet
	grant re-grace
	credentials re-grace | class re-grace
	for way in "${ways[@]}"; do
		grant "$way"
		credentials "$way" | class "$way"
	done
	# Two that query on when they are told to end: one container for 8 s, and after it another one until it is killed.
	for i in 1 2; do
		EVERY=500ms tenant "re-grace-$i" '.spec.terminationGracePeriodSeconds = 20 | setting("LINGER"; "8s") |
			.spec.containers += [.spec.containers[0] | .name = "last" |
				.env |= map(if .name == "LINGER" then .value = "1h" else . end)]'
	done
	for ((i = 1; i <= n; i++)); do
		for way in re-del re-evict re-force; do
			tenant "$way-$i"
			names+=("$way-$i")
		done
	done
	namespace "$GONE"
	grant re-space app "$GONE"
	credentials re-space | NS=$GONE class re-space
	for ((i = 1; i <= n; i++)); do NS=$GONE tenant "re-space-$i"; done
	querying 120 "${names[@]}" re-grace-{1,2}
	mapfile -t spaces < <(seq -f re-space-%g "$n")
	NS=$GONE querying 60 "${spaces[@]}"
	# What ends by itself is made last: it must be seen at work, too.
	client_json re-done re-done '.metadata.labels.case = "release" | .spec.restartPolicy = "Never" | setting("EVERY"; "1s") | setting("LIFETIME"; "5s")' |
		jq --argjson n "$n" '{apiVersion: "batch/v1", kind: "Job", metadata: {name: "re-done"}, spec: {completions: $n,
			parallelism: $n, backoffLimit: 0, template: {metadata: {labels: .metadata.labels}, spec: .spec}}}' | create jobs
	for ((i = 1; i <= n; i++)); do
		tenant "re-crash-$i" '.spec.restartPolicy = "Never" | setting("LIFETIME"; "5s") | setting("STATUS"; "3")'
	done
	eventually 90 "the Job is complete" completed re-done
	mapfile -t crashes < <(seq -f re-crash-%g "$n")
	eventually 60 "the pods have crashed" crashed "${crashes[@]}"
	mapfile -t jobs < <(job_pods)
	remember "${names[@]}" re-grace-{1,2} "${crashes[@]}" "${jobs[@]}"
	NS=$GONE remember "${spaces[@]}"

	# The logs of pods that go are read to their end.
	for i in 1 2; do
		follow "re-grace-$i" last >"$BATS_TEST_TMPDIR/log-$i" 3>&- &
	done
	for i in 1 2; do delete "pods/re-grace-$i"; done
	delete "namespaces/$GONE"
	for ((i = 1; i <= n; i++)); do
		delete "pods/re-del-$i"
		evict "re-evict-$i"
		force "pods/re-force-$i"
	done
	# Those of re-grace are seen to work to the end by the queries of their last containers.
	for way in "${ways[@]}" re-space re-grace; do released "$way"; done
	for i in 1 2; do
		wait -n || true
	done
	for i in 1 2; do
		same "failed queries of the last container in its grace period" \
			"$(jq -Rc 'fromjson? | select(.queries)' "$BATS_TEST_TMPDIR/log-$i" | tail -n 1 | jq .failed)" 0
		# Its grace is 20 s from when kubelet hears of it, and it says something once a second.
		between "seconds that it went on" "$(lingered "$i")" 16 60
	done
	eventually 60 "the namespace is gone" gone "namespaces/$GONE"
}
completed() { get "jobs/$1" | jq -e --argjson n "${RELEASE_PODS:-4}" '.status.succeeded == $n' >/dev/null; }
crashed() {
	local others
	others=$(get pods | jq -r '[.items[] | select(.status.phase == "Failed" and
		.status.containerStatuses[0].state.terminated.exitCode == 3) | .metadata.name] as $crashed |
		$ARGS.positional - $crashed | join(", ")' --args "$@") && [[ -z $others ]] || fail "not yet: $others"
}
job_pods() { get "pods?labelSelector=job-name=re-done" | jq -r '.items[].metadata.name'; }
# follow POD CONTAINER: prints what it says until it ends.
follow() { exec curl -gNsS --unix-socket "$E2E_PROXY" "http://localhost$(path "pods/$1/log?container=$2&follow=true")"; }
# lingered NUMBER: from the first word that the API server told of the pod's coming end to its last container's last line.
lingered() {
	local told last
	told=$(awk -v name="re-grace-$1" '$3 == name && $5 != "" { print $1; exit }' "$PODS")
	last=$(jq -Rr 'fromjson? | .time | sub("\\..*Z$"; "Z") | fromdate' "$BATS_TEST_TMPDIR/log-$1" | tail -n 1)
	echo $((last - ${told%.*}))
}

@test "pods that are deleted while the provider is away are released when it is back" {
	quiet
	grant re-prov
	credentials re-prov | class re-prov
	for i in 1 2 3 4; do tenant "re-prov-$i"; done
	querying 60 re-prov-{1,2,3,4}
	remember re-prov-{1,2,3,4}
	absent
	for i in 1 2 3; do delete "pods/re-prov-$i"; done
	force pods/re-prov-4
	# A pod whose volume is being polled stays until that is given up: its volume is not taken down before.
	eventually 60 "the pods have ended" have_ended re-prov-{1,2,3,4}
	has_users re-prov 4
	began=$(now) # it takes its container's start to be back
	present
	released re-prov 60 "$began"
}

have_ended() {
	local alive
	alive=$(get pods | jq -r '[.items[] | select(.status.phase | IN("Succeeded", "Failed") | not) | .metadata.name] as $alive |
		$ARGS.positional - ($ARGS.positional - $alive) | join(", ")' --args "$@") && [[ -z $alive ]] || fail "not yet: $alive"
}

@test "pods that are deleted while Vault is down or sealed are released when it is back" {
	needs_node
	quiet
	grant re-down
	grant re-seal
	for role in re-down re-seal; do
		credentials "$role" | class "$role"
		for i in 1 2 3; do tenant "$role-$i"; done
	done
	querying 60 re-down-{1,2,3} re-seal-{1,2,3}
	remember re-down-{1,2,3} re-seal-{1,2,3}

	on_bed stop vault
	for i in 1 2 3; do delete "pods/re-down-$i"; done
	eventually 60 "the pods are gone" are_gone re-down-{1,2,3}
	has_users re-down 3
	on_bed start vault
	released re-down 60 "$(now)"

	vault PUT sys/seal
	for i in 1 2 3; do delete "pods/re-seal-$i"; done
	sleep "${RELEASE_OUTAGE:-60}" # how long it stays sealed
	are_gone re-seal-{1,2,3}
	has_users re-seal 3
	on_bed restart vault # which unseals it
	released re-seal 90 "$(now)"
}
are_gone() {
	local name
	for name; do gone "pods/$name" || fail "$name is there" || return; done
}

@test "pods that are deleted and end while the API server is away are released when it is back" {
	needs_node
	quiet
	grant re-api
	credentials re-api | class re-api
	for i in 1 2 3; do tenant "re-api-$i" '.spec.terminationGracePeriodSeconds = 3 | setting("LINGER"; "1h")'; done
	querying 60 re-api-{1,2,3}
	remember re-api-{1,2,3}
	runs re-api # else the next question would be none
	for i in 1 2 3; do delete "pods/re-api-$i"; done
	on_bed stop kube-apiserver
	eventually 30 "their processes have ended" runs_no_more re-api
	has_users re-api 3 # for nobody says that they are gone
	on_bed start kube-apiserver
	began=$(now)
	eventually 60 "the node is ready" node_ready
	released re-api 60 "$began"
}
# runs NAME: processes of pods whose names begin so run on the node, which is where this suite runs when it has a node.
# One that ends while it is looked at is an error to grep, but not with -q, if another one is found.
runs() { grep -qsaE "(^|[^a-z])HOSTNAME=$1-" /proc/[0-9]*/environ; }
runs_no_more() { ! runs "$1"; }

@test "with the database away Vault takes the token back at once, and the users go when the database is there again" {
	needs_node
	quiet
	grant re-db
	credentials re-db | class re-db
	for i in 1 2 3; do tenant "re-db-$i"; done
	querying 60 re-db-{1,2,3}
	released=$(metric 'releases_total{outcome="revoked"}')
	on_bed stop postgres
	for i in 1 2 3; do delete "pods/re-db-$i"; done
	eventually 60 "no token is left" no_tokens re-db
	eventually 10 "three releases are counted" counted 'releases_total{outcome="revoked"}' $((released + 3))
	on_bed start postgres
	began=$(now)
	has_users re-db 3
	vanishes 240 re-db
	say "re-db: 3 pods; Vault, which tries again by itself, had them gone $(since "$began") s after the database was back"
}
no_tokens() { [[ -z $(tokens "$1") ]]; }
counted() {
	local n
	n=$(metric "$1") && ((n >= $2)) || fail "$n so far, want $2"
}

@test "mounts that fail leave nothing, however they fail" {
	quiet
	# Making a user takes as long as the database role says. To take it away, too: whoever watches is to see it.
	grant fm-slow
	vault PUT database/roles/fm-slow "$(vault GET database/roles/fm-slow |
		jq '{creation_statements: (["select pg_sleep(4);"] + .data.creation_statements),
			revocation_statements: ["select pg_sleep(1);", "drop role if exists \"{{name}}\";"]}')"
	credentials fm-slow | class fm-slow
	grant fm-deny
	{
		credentials fm-deny
		echo '- {objectName: no, secretPath: kv1/forbidden, secretKey: word}'
	} | class fm-deny
	grant fm-key
	vault PUT kv1/fm-key '{"word": "xyzzy"}'
	{
		credentials fm-key
		echo '- {objectName: no, secretPath: kv1/fm-key, secretKey: none}'
	} | class fm-key
	pod fm-deny fm-deny
	pod fm-key fm-key
	pod fm-slow fm-slow
	eventually 30 "a login for fm-slow is done" has_token fm-slow
	has_users fm-slow 0
	force pods/fm-slow
	eventually 30 "its user is made all the same" came_one fm-slow
	told 30 fm-deny PermissionDenied 'object "no"'
	told 30 fm-key 'no key "none"'
	if [[ -n ${E2E_NODE:-} ]]; then
		grant fm-db
		credentials fm-db | class fm-db
		on_bed stop postgres
		pod fm-db fm-db
		told 60 fm-db 'database/creds/fm-db'
		delete pods/fm-db
		eventually 60 "the pod is gone" gone pods/fm-db
		on_bed start postgres
	fi
	between "database users of fm-deny, whatever kubelet has tried" "$(users fm-deny | count)" 0 1
	between "database users of fm-key, whatever kubelet has tried" "$(users fm-key | count)" 0 1
	delete pods/fm-deny
	delete pods/fm-key
	for role in fm-deny fm-key fm-slow fm-db; do vanishes 60 "$role"; done
}
has_token() { [[ -n $(tokens "$1") ]]; }
came_one() { same "users of $1 that PostgreSQL saw" "$(came "$USERS" "$1")" 1; }
