#!/usr/bin/env bash
# What is kept to find out afterwards why a case failed, and for the canary to search.

# keep_diagnostics: the state of the cluster when a case has failed, into a directory of its own.
keep_diagnostics() {
	local directory
	directory=$E2E_OUTPUT/$(basename "${BATS_TEST_FILENAME%.bats}")-$BATS_TEST_NUMBER
	mkdir -p "$directory"
	{
		echo "$BATS_TEST_DESCRIPTION"
		kubectl get pods -A -o wide
	} >"$directory/summary" 2>&1
	kubectl get events -A --sort-by=.lastTimestamp >"$directory/events" 2>&1
	local space
	for space in "$NAMESPACE" "$OTHER" "$SYSTEM"; do
		kubectl describe all,secretproviderclasses,secretproviderclasspodstatuses -n "$space"
	done >"$directory/describe" 2>&1
	kubectl logs -n "$SYSTEM" -l "$SELECTOR" --tail=-1 --prefix >"$directory/provider.log" 2>&1
	kubectl logs -n "$SYSTEM" -l "$WEBHOOK_SELECTOR" --tail=-1 --prefix >"$directory/webhook.log" 2>&1
	kubectl logs -n kube-system -l "$DRIVER_SELECTOR" -c secrets-store --tail=-1 --prefix >"$directory/driver.log" 2>&1
	local name
	for name in $(get pods | jq -r '.items[].metadata.name'); do
		echo "== $name"
		log "$name"
	done >"$directory/apps.log" 2>&1
	{
		echo "kept in $directory; the last events and words of the provider:"
		tail -n 12 "$directory/events" | cut -c 1-400
		tail -n 8 "$directory/provider.log" | cut -c 1-400
	} >&2
	return 0
}

# record DIRECTORY: until it is ended, follows the log of every container of provider, webhook and driver into a file of its
# own, for the pods that a case ends take their logs with them.
record() {
	local directory=$1 line space pod container
	local -A follower=()
	mkdir -p "$directory"
	# shellcheck disable=SC2046 # one process id a word
	trap 'kill $(jobs -p) 2>/dev/null; exit 0' TERM
	while :; do
		for line in $(containers); do
			# Who has lost the API server on the way begins again: better a line twice than not at all.
			if [[ -z ${follower[$line]:-} ]] || ! kill -0 "${follower[$line]}" 2>/dev/null; then
				IFS=/ read -r space pod container _ <<<"$line"
				kubectl logs -f -n "$space" "$pod" -c "$container" >>"$directory/${line//\//_}.log" 2>/dev/null &
				follower[$line]=$!
			fi
		done
		sleep 0.5
	done
}

# containers: those that have started, each as namespace/pod/container/restarts.
containers() {
	{
		NS=$SYSTEM get "pods?labelSelector=$SELECTOR"
		NS=$SYSTEM get "pods?labelSelector=$WEBHOOK_SELECTOR"
		NS=kube-system get "pods?labelSelector=$DRIVER_SELECTOR"
	} 2>/dev/null | jq -r '.items[] | .metadata as $m | .status.containerStatuses[]? | select(.state.running) |
		"\($m.namespace)/\($m.name)/\(.name)/\(.restartCount)"'
}
