#!/usr/bin/env bats
# Credentials change under pods that use them all the time, and no query fails. Each client opens a new connection ten times a
# second with what its files hold at that moment. In each part its clients run side by side.
#
#	NOGAP_SECONDS   how long each part is observed (default: 90, and 100 under trouble)
#	NOGAP_TROUBLES  what befalls them: runs, each of kinds joined by + (default: "outage+kill+update", all in one run)
#	NOGAP_SEED      of the times and the order of troubles (default: 1)

load lib/all

setup_file() {
	export USERS=$BATS_FILE_TMPDIR/users FIGURES=$BATS_FILE_TMPDIR/figures NOGAP_SEED=${NOGAP_SEED:-1}
	: >"$FIGURES"
	watch_users >>"$USERS" 3>&- &
	echo $! >"$BATS_FILE_TMPDIR/watcher"
}

# A line of FIGURES is: queries, failed, replaced, kills, outages.
teardown_file() {
	kill "$(<"$BATS_FILE_TMPDIR/watcher")"
	driver_reset
	say "$(awk '{ for (n = 1; n <= 5; n++) sum[n] += $n }
		END { printf "nogap queries=%d failed=%d replaced=%d kills=%d outages=%d", sum[1], sum[2], sum[3], sum[4], sum[5] }' \
		"$FIGURES")"
}

teardown() {
	vault_is_back
	end_case
}

# observe BEGAN SECONDS CLIENT...: for so long since then no query of the clients fails. It ends as soon as one does.
observe() {
	local until=$(($1 + $2))
	shift 2
	while ((EPOCHSECONDS < until)); do
		flawless "$@" || return
		sleep 3
	done
	flawless "$@"
}

# clients ROLE...: makes a class and a client for each, all of one name. More of them would keep two processors busy with new
# connections alone, and show no more.
clients() {
	local role
	for role; do
		credentials "$role" | class "$role"
		client "$role" "$role"
	done
}

# figures KILLS OUTAGES ROLE CLIENT...: adds what the clients of a role have counted to the file's figures, says it, and
# compares it with what PostgreSQL has seen: each client has had a user at first, and may not have looked at the last one yet.
figures() {
	local kills=$1 outages=$2 role=$3 queries failed users seen
	shift 3
	queries=$(total queries "$@") && failed=$(total failed "$@") && users=$(total users "$@") && seen=$(came "$USERS" "$role") || return
	echo "$queries $failed $((users - $#)) $kills $outages" >>"$FIGURES"
	say "$role: $# clients, $queries queries, $failed failed, $((users - $#)) replacements; PostgreSQL saw $seen users"
	between "users of $role that PostgreSQL saw" "$seen" "$users" $((users + $# + kills))
}

# often SECONDS CLIENT...: each has queried at half its pace at least for so long; one that hardly asks would miss every gap.
often() {
	local seconds=$1 name n
	shift
	for name; do
		n=$(summary "$name" | jq .queries) || return
		((n >= 5 * seconds)) || fail "client $name: $n queries in $seconds s, want 5 a second" || return
	done
}

# replaced NUMBER CLIENT...: the credentials of each were replaced so often.
replaced() {
	local least=$1 name n
	shift
	for name; do
		n=$(replacements "$name") || return
		((n >= least)) || fail "client $name: its credentials were replaced $n times, want $least" || return
	done
}

@test "the driver polls: no query fails while credentials and logins come to their end" {
	quiet
	grant ng-on # its credentials end
	credentials_last ng-on 10s 20s
	grant ng-login # its logins end, and with them all that they have gained
	login ng-login '{"token_ttl": "8s", "token_max_ttl": "20s"}'
	clients ng-on ng-login
	querying 60 ng-on ng-login
	status=0
	observe "$EPOCHSECONDS" "${NOGAP_SECONDS:-90}" ng-on ng-login || status=1
	figures 0 0 ng-on ng-on
	figures 0 0 ng-login ng-login
	same "whether queries have failed" "$status" 0
	often "${NOGAP_SECONDS:-90}" ng-on ng-login
	replaced $((${NOGAP_SECONDS:-90} * 4 / 90)) ng-on
	replaced $((${NOGAP_SECONDS:-90} * 3 / 90)) ng-login
}

@test "the driver does not poll: no query fails, and where an end cannot be helped, an event and a metric tell it before" {
	driver_set enableSecretRotation=false
	quiet
	# Two that come to an end: one must not change its files, the other cannot log in any more, soon after it has.
	grant ng-froze
	credentials_last ng-froze 60s 60s
	credentials ng-froze | class ng-froze '.spec.parameters.rotation = "off"'
	grant ng-shut
	login ng-shut '{"token_ttl": "20s", "token_max_ttl": "30s"}'
	credentials ng-shut | class ng-shut
	service_account other
	client ng-froze ng-froze
	client ng-shut ng-shut
	eventually 60 "ng-shut has its user" has_users ng-shut 1
	login ng-shut '{"bound_service_account_names": ["other"]}'
	querying 60 ng-froze ng-shut
	frozen=$(holder ng-froze) shut=$(holder ng-shut)
	# The metric is of the first end of all, and here that of ng-shut comes first by far: what is renewed all the time, and would
	# hide it, is made after this.
	eventually 40 "an event tells of the end of ng-shut" foretold ng-shut
	end=$(foretold ng-shut) asked=$EPOCHSECONDS
	left=$(metric seconds_to_expiry)
	say "ng-shut: seconds to the nearest end, by the metric: $left; by the event: $((end - asked))"
	between "seconds to the nearest end, by the metric, when ng-shut has been told of it" "${left%.*}" 1 30
	between "the same, by the end that the event names" "${left%.*}" $((end - EPOCHSECONDS - 1)) $((end - asked))

	grant ng-off
	credentials_last ng-off 10s 20s
	grant ng-per # its logins end unless they are renewed, which can go on for ever
	credentials_last ng-per 10s 20s
	login ng-per '{"token_period": "8s"}'
	clients ng-off ng-per
	querying 60 ng-off ng-per
	began=$EPOCHSECONDS mounted=$(mounts) periodic=$(tokens ng-per)

	tells_end 70 ng-froze "$frozen" CredentialsEnd
	tells_end 70 ng-shut "$shut" 'CredentialsEnd|ReplacementFailed'
	delete pods/ng-froze
	delete pods/ng-shut

	status=0
	observe "$began" "${NOGAP_SECONDS:-90}" ng-off ng-per || status=1
	figures 0 0 ng-off ng-off
	figures 0 0 ng-per ng-per
	same "whether queries have failed" "$status" 0
	same "Mounts meanwhile" "$(mounts)" "$mounted"
	same "tokens of ng-per, whose login needs no other" "$(tokens ng-per)" "$periodic"
	often "${NOGAP_SECONDS:-90}" ng-off ng-per
	replaced $((${NOGAP_SECONDS:-90} * 4 / 90)) ng-off ng-per
	driver_reset
}

# foretold POD: when the pod's credentials end, in seconds, as the event says that warns of it.
foretold() {
	get "events?fieldSelector=involvedObject.uid=$(get "pods/$1" | jq -r .metadata.uid)" | jq -er 'first(.items[] |
		select(.type == "Warning" and (.reason | IN("CredentialsEnd", "ReplacementFailed"))) | .message |
		capture("end at (?<end>[0-9TZ:-]+Z)").end | fromdate)'
}

@test "under trouble: no query fails while Vault is down for 5 s, the provider is killed, and it is updated" {
	needs_node
	local kinds
	for kinds in ${NOGAP_TROUBLES:-outage+kill+update}; do
		trouble "$kinds"
	done
}

# trouble KINDS: one run, with troubles at random times, one after the other.
trouble() {
	local role=ng-tr names=(ng-tr-{a,b}) name kind restarts outages=0 kills=0 updates=0 began status=0 seconds=${NOGAP_SECONDS:-100}
	quiet
	grant "$role"
	credentials_last "$role" 30s 60s
	credentials "$role" | class "$role"
	for name in "${names[@]}"; do client "$name" "$role"; done
	querying 60 "${names[@]}"
	: >"$USERS"
	for name in "${names[@]}"; do echo "INFO: 0 + $(holder "$name")" >>"$USERS"; done
	RANDOM=$NOGAP_SEED began=$EPOCHSECONDS
	while ((status == 0 && EPOCHSECONDS - began < seconds)); do
		for kind in ${1//+/ }; do
			# What is random is when it strikes: credentials may be anywhere in their life.
			sleep $((RANDOM % 8)).$((RANDOM % 10))
			case $kind in
			outage)
				on_bed stop vault
				sleep 5 # how long it is away
				on_bed start vault
				((++outages))
				;;
			kill)
				restarts=$(provider_restarts)
				kill_provider
				eventually 60 "the provider runs again" started_again "$restarts"
				((++kills))
				;;
			update)
				install_provider --set-string "provider.podAnnotations.update=$EPOCHREALTIME"
				((++updates))
				;;
			esac
			flawless "${names[@]}" || status=1
		done
	done
	say "seed $NOGAP_SEED, $1: $outages outages, $kills kills, $updates updates in $((EPOCHSECONDS - began)) s"
	figures "$kills" "$outages" "$role" "${names[@]}"
	same "whether queries have failed" "$status" 0
	often "$seconds" "${names[@]}"
	replaced $((seconds / 50)) "${names[@]}"
	for name in "${names[@]}"; do delete "pods/$name"; done
}
