#!/usr/bin/env bats
# What takes longer than "make test" may: "make soak" runs it. Kubernetes makes no service account token that ends within less
# than ten minutes.

load lib/all

setup_file() {
	export USERS=$BATS_FILE_TMPDIR/users
	watch_users >"$USERS" 3>&- &
	echo $! >"$BATS_FILE_TMPDIR/watcher"
	driver_set enableSecretRotation=false 'tokenRequests[0].audience=vault' 'tokenRequests[0].expirationSeconds=600'
}
teardown_file() {
	kill "$(<"$BATS_FILE_TMPDIR/watcher")"
	driver_reset
}

@test "without polls and without a periodic token an event and a metric tell of the end, after the service account token's" {
	quiet
	grant lo-end
	login lo-end '{"token_ttl": "120s", "token_max_ttl": "720s"}'
	credentials_last lo-end 30s 60s
	credentials lo-end | class lo-end
	client lo-end lo-end
	querying 60 lo-end
	eventually 720 "an event tells of the end" warned lo-end
	flawless lo-end
	replaced=$(replacements lo-end) end=$(metric seconds_to_expiry)
	say "$replaced replacements until then; seconds to the nearest end, by the metric: $end"
	between "replacements until then" "$replaced" 8 30
	between "seconds to the nearest end, by the metric" "${end%.*}" 1 120
	eventually 120 "its last user has come to its end" has_users lo-end 0
	eventually 10 "the watch knows" has_gone "$(holder lo-end)"
	tells_end 10 lo-end "$(holder lo-end)" CredentialsEnd
}
warned() {
	get "events?fieldSelector=reason=CredentialsEnd,involvedObject.uid=$(get "pods/$1" | jq -r .metadata.uid)" |
		jq -e '.items | length > 0' >/dev/null
}
