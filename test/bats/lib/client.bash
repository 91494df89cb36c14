#!/usr/bin/env bash
# Pods that use their credentials as an application does: the program "client" of the app's image reads its files, opens a
# new connection and queries, again and again, and says how many queries have failed. See test/integration/cmd/client.

# client_json NAME CLASS [FILTER]: such a pod. Its settings are set by "setting(NAME; VALUE)" in the jq filter.
client_json() { pod_json "$1" "$2" '.spec.containers[0].command = ["client"] | '"${3:-.}"; }

# client NAME CLASS [FILTER]: makes it.
client() { client_json "$@" | create pods; }

# summary POD: what the client has said last of how it goes, as JSON.
summary() {
	local text
	text=$(log "$1" | jq -Rc 'fromjson? | select(.queries)' | tail -n 1) && [[ -n $text ]] || fail "client $1 has said nothing yet" || return
	echo "$text"
}

# holder POD: the database user whose credentials the client's files hold.
holder() { summary "$1" | jq -r .user; }

# querying SECONDS POD...: each of the clients has begun to query, and none has failed.
querying() {
	local seconds=$1 name
	shift
	eventually "$seconds" "all clients run" ready "$@" || return
	for name; do
		eventually 10 "client $name queries" summary "$name" || return
	done
	flawless "$@"
}

# flawless POD...: none of the clients' queries has failed so far, and none of their containers was started again.
flawless() {
	local name text
	for name; do
		text=$(log "$name" | jq -Rr 'fromjson? | select(.error) | "\(.time) as \(.user): \(.error)"' | head -n 5)
		[[ -z $text ]] || fail "client $name: failed queries:" "$text" || return
		same "failed queries of client $name" "$(summary "$name" | jq .failed)" 0 || return
	done
	text=$(get pods | jq -r '[.items[] | select(.metadata.name | IN($ARGS.positional[])) | .status.containerStatuses[]?.restartCount] |
		unique | join(" ")' --args "$@") || return
	same "restarts of clients $*" "$text" 0
}

# replacements POD: how often the client's credentials were replaced by others.
replacements() { summary "$1" | jq '.users - 1'; }

# total FIELD POD...: the sum of a field of the clients' summaries.
total() {
	local field=$1 name
	shift
	for name; do summary "$name" || return; done | jq -s --arg field "$field" 'map(.[$field]) | add'
}

# tells_end SECONDS POD USER REASON: before the pod's user comes to its end, which watch_users notes in the file USERS, an event
# of the pod has told of it. REASON is a regular expression.
tells_end() {
	local event at
	eventually "$1" "the user of pod $2 has come to its end" has_gone "$3" || return
	event=$(get "events?fieldSelector=involvedObject.uid=$(get "pods/$2" | jq -r .metadata.uid)" | jq -c --arg reason "^($4)\$" '
		[.items[] | select(.type == "Warning" and (.reason | test($reason)))] | sort_by(.firstTimestamp) | .[0] // empty') &&
		[[ -n $event ]] || fail "pod $2 has no event $4" || return
	at=$(jq -r '.firstTimestamp // .eventTime | sub("\\..*Z$"; "Z") | fromdate' <<<"$event")
	say "$(jq -r '"\(.reason): \(.message)"' <<<"$event"), $(awk -v a="$at" -v b="$(went "$USERS" "$3")" 'BEGIN { printf "%.0f", b - a }') s before"
	between "when pod $2 was told of its end" "$at" 0 "$(went "$USERS" "$3" | cut -d . -f 1)"
}

# has_gone USER: watch_users has seen it go.
has_gone() { [[ -n $(went "$USERS" "$1") ]]; }
