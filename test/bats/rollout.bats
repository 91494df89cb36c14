#!/usr/bin/env bats
# An update of the provider must be no event for anybody else.

load lib/all

@test "an update of the DaemonSet under pods that start all the time lets none fail, and old and new overlap" {
	quiet
	grant rollout
	credentials rollout | class rollout
	pod stays rollout
	starts 60 stays
	old=$(only_provider) notes=$BATS_TEST_TMPDIR
	NS=$SYSTEM watch "pods?labelSelector=$SELECTOR" >"$notes/watch" 3>&- &
	watcher=$!
	keep_starting "$notes" 3>&- &
	starter=$!
	eventually 30 "pods have started" started 3
	began=$(now)
	install_provider --set-string "provider.podAnnotations.update=$EPOCHSECONDS"
	say "the update took $(since "$began") s"
	n=$(wc -l <"$notes/started")
	eventually 60 "pods start after the update" started $((n + 5))
	touch "$notes/enough"
	wait "$starter"
	kill "$watcher"

	new=$(only_provider)
	unlike "the provider's pod" "$new" "$old"
	order=$(jq -rs --arg old "$old" --arg new "$new" '
		map(.object | {name: .metadata.name, ready: any(.status.conditions[]?; .type == "Ready" and .status == "True"),
			ending: (.metadata.deletionTimestamp != null)}) |
		(map(.name == $new and .ready) | index(true)) as $ready | (map(.name == $old and .ending) | index(true)) as $ending |
		"\($ready != null and $ending != null and $ready < $ending)"' "$notes/watch")
	same "the new pod was ready before the old one was told to end" "$order" true

	all_started "$notes/started"
	none_failed
	kept stays
	queries stays >/dev/null
}

# keep_starting DIRECTORY: makes a pod twice a second until the file "enough" is there; notes name and time of each.
keep_starting() {
	local n=0
	while [[ ! -e $1/enough ]]; do
		n=$((n + 1))
		pod "rollout-$n" rollout '.spec.restartPolicy = "Never" | .metadata.labels.case = "rollout" |
			.spec.containers[0].env += [{name: "ONCE", value: "true"}]'
		echo "rollout-$n $(now)" >>"$1/started"
		sleep 0.3
	done
}
started() {
	local n
	n=$(get "pods?labelSelector=case=rollout" | jq '[.items[] | select(.status.phase == "Succeeded")] | length') &&
		((n >= $1)) || fail "$n pods have come to their end"
}
# none_failed: kubelet had to repeat no mount of these pods, which their own end would not tell.
none_failed() {
	local uids failed
	uids=$(get "pods?labelSelector=case=rollout" | jq -c '[.items[].metadata.uid]') &&
		failed=$(get "events?fieldSelector=reason=FailedMount" | jq -r --argjson uids "$uids" '.items[] |
			select((.involvedObject.uid | IN($uids[])) and (.message | contains("kube-api-access") | not)) | "\(.involvedObject.name), \(.count // 1) times: \(.message)"') || return
	[[ -z $failed ]] || fail "mounts failed during the update:" "$failed"
}
# all_started FILE: every pod that was made has found its secrets; prints how long the slowest took.
all_started() {
	local number name at said longest
	number=$(wc -l <"$1")
	eventually 60 "all $number pods have come to their end" started "$number"
	longest=$(while read -r name at; do
		said=$(log "$name") && [[ $said == "SECRETS THERE "* && $said != *$'\n'* ]] || fail "$name: $said" || exit
		awk -v from="$at" -v to="${said##* }" -v name="$name" 'BEGIN { printf "%.1f s (%s)\n", to - from, name }'
	done <"$1" | sort -n | tail -n 1)
	say "$number pods started during the update; the slowest took $longest"
	between "seconds of the slowest start" "${longest%%.*}" 0 20
}
