#!/usr/bin/env bats
# The provider and kubelet come and go; pods stay. What the provider knows is in its journal: its own restart makes no login
# and no database user, but for requests that a kill struck before their answers were written down.

load lib/all

@test "the provider's pod is deleted: pods keep running with their files, and the next poll works" {
	grant deleted
	credentials deleted | class deleted
	pods deleted deleted-a deleted-b
	starts 60 deleted-a deleted-b
	first=$(queries deleted-a) old=$(only_provider)
	NS=$SYSTEM delete "pods/$old"
	eventually 60 "another provider pod is ready" replaced "$old"
	contains "users in PostgreSQL: an ending provider takes nothing away from pods" "$(users deleted)" "$first"
	eventually 60 "the new provider has answered polls" mounts_reach 4
	same "who the pod is" "$(queries deleted-a)" "$first"
	queries deleted-b >/dev/null
	kept deleted-a deleted-b
	has_users deleted 2
}
replaced() {
	local name
	name=$(only_provider) && [[ $name != "$1" ]] && provider_ready
}

@test "the provider is killed while twenty pods start: every one starts, with a user of its own" {
	quiet
	grant killed
	credentials killed | class killed
	names=() restarts=$(provider_restarts)
	for i in {1..20}; do names+=("killed-$i"); done
	killer=$BATS_TEST_TMPDIR/killer
	kill_provider_at 5 >"$killer" 3>&- &
	eventually 30 "the killer waits" grep -q ready "$killer"
	began=$(now)
	pods killed "${names[@]}"
	wait $! || fail "the provider was not killed"
	starts 120 "${names[@]}"
	say "killed when $(tail -n 1 "$killer") of 20 volumes were mounted; all pods ran after $(since "$began") s"
	same "restarts of the provider" "$(provider_restarts)" $((restarts + 1))
	eventually 60 "the provider is ready" provider_ready
	polls=$(mounts)
	eventually 60 "each volume was polled" mounts_reach $((polls + 20))
	kept "${names[@]}"
	users=$(for name in "${names[@]}"; do user "$name"; done | LC_ALL=C sort -u)
	same "different users of 20 pods" "$(count <<<"$users")" 20
	same "those of them that PostgreSQL knows" "$(comm -12 <(echo "$users") <(users killed | LC_ALL=C sort) | count)" 20
	for name in killed-1 killed-10 killed-20; do queries "$name" >/dev/null; done
	total=$(users killed | count)
	say "$total database users for 20 pods and one kill"
	# One that nobody claims may be left of each request that was in flight. It ends with its pod.
	between "database users" "$total" 20 $((20 + $(tail -n 1 "$killer")))
}

@test "kubelet is restarted: the same containers run on with the same files, and polls go on" {
	needs_node
	quiet
	grant kubelet
	credentials kubelet | class kubelet
	pods kubelet kubelet-a kubelet-b
	starts 60 kubelet-a kubelet-b
	files=$(fingerprint kubelet-a) containers=$(containers_of)
	on_bed restart kubelet
	eventually 60 "kubelet reports the node ready" node_ready
	eventually 60 "kubelet knows the pod again" in_pod kubelet-a true
	polls_go_on 6
	[[ $(fingerprint kubelet-a) == "$files" ]] || fail "the files have changed"
	same "containers" "$(containers_of)" "$containers"
	kept kubelet-a kubelet-b
	has_users kubelet 2
}
containers_of() { get pods | jq -c '[.items[].status.containerStatuses[0].containerID]'; }
