#!/usr/bin/env bats
# What the webhook goes through while it is in use: an update of its own, renewals of its certificates, and the end of classes
# that nobody uses any more. Nobody who makes a pod meanwhile notices.

load lib/all

SWEPT=leasehold-e2e-swept # a namespace whose classes grow old from the first case to the last
NUMBER=40                 # of its pods, each with a class of its own
GRACE=120                 # seconds that a class is kept; there can be no fewer

setup_file() {
	install_short_lived
	namespace "$SWEPT"
	NS=$SWEPT service_account app
	local i
	for ((i = 1; i <= NUMBER; i++)); do asking "$i"; done >"$BATS_FILE_TMPDIR/asking"
	NS=$SWEPT create pods <"$BATS_FILE_TMPDIR/asking"
	asking unused | NS=$SWEPT create pods
	NS=$SWEPT class_of asking-unused >"$BATS_FILE_TMPDIR/unused"
	NS=$SWEPT delete pods/asking-unused
}

# install_short_lived [HELM ARGUMENTS...]: a webhook whose certificates and classes live as short as possible.
install_short_lived() { install_webhook --set webhook.certificateLife=1m --set "webhook.classGrace=${GRACE}s" "$@"; }

# asking NAME: a pod that never starts, and that asks for what no other one asks for.
asking() { annotated_pod "asking-$1" 'gated | annotation("agent-inject-secret-db-creds"; "kv1/\(.metadata.name)")'; }

teardown() {
	[[ ! -d $BATS_TEST_TMPDIR/load ]] || touch "$BATS_TEST_TMPDIR/load/enough"
	end_case
}

teardown_file() {
	kubectl delete namespace "$SWEPT" --wait=true >/dev/null
	install_provider
}

@test "an update of the webhook under load lets no admission fail" {
	under_load update
}
update() {
	local before
	before=$(webhook_pods | jq -c 'map(.metadata.name)')
	install_short_lived --set-string "webhook.podAnnotations.update=$EPOCHSECONDS" &&
		same "replicas that are still there" "$(webhook_pods | jq --argjson before "$before" 'map(.metadata.name) - (map(.metadata.name) - $before)')" "[]"
}

@test "renewals of authority and certificate under load let no admission fail" {
	under_load renewals
}
# renewals: without its key an authority can sign no more, so that there is a new one. What that one signs lives for a minute
# and is renewed after two thirds of it; a replica that served it any longer than a minute would be trusted by nobody.
renewals() {
	local first=$BATS_TEST_TMPDIR/first second=$BATS_TEST_TMPDIR/second
	serving >"$first" &&
		NS=$SYSTEM patch "secrets/$RELEASE-webhook" '{"data": {"ca.key": null}}' &&
		eventually 30 "there is a certificate of another authority" differs_from "$first" && serving >"$second" &&
		unlike "authorities" "$(issuer "$first")" "$(issuer "$second")" &&
		eventually 90 "that one is renewed" differs_from "$second" &&
		eventually 60 "it has ended" ended "$second"
}
# serving: the certificate that the replicas share, with which they serve.
serving() { NS=$SYSTEM get "secrets/$RELEASE-webhook" | jq -r '.data["tls.crt"] | @base64d'; }
differs_from() { ! cmp -s <(serving) "$1"; }
issuer() { openssl x509 -noout -issuer -in "$1"; }
ended() { ! openssl x509 -noout -checkend 0 -in "$1" >/dev/null; }

# under_load COMMAND...: while it runs, and a little before and after, pods are admitted all the time, and none may fail.
under_load() {
	local load=$BATS_TEST_TMPDIR/load n loader
	mkdir "$load"
	admit "$load" 3>&- &
	loader=$!
	eventually 30 "pods are admitted" admitted "$load" 100
	"$@"
	n=$(wc -l <"$load/codes")
	eventually 60 "pods are admitted afterwards" admitted "$load" $((n + 100))
	touch "$load/enough"
	wait "$loader"
	same "what went wrong with admissions" "$(head -n 20 "$load/failures")" ""
	same "the API server's answers" "$(sort -u "$load/codes")" 201
	say "$(wc -l <"$load/codes") admissions, none failed"
}
admitted() { (($(wc -l <"$1/codes") >= $2)) || fail "$(wc -l <"$1/codes") so far" "$(head "$1/failures")"; }

# admit DIRECTORY: until the file "enough" is there, asks for forty annotated pods at a time, on a dry run, and then for one that
# is made, in turn. The API server keeps no more than 25 connections to a webhook: so each time it makes some anew, to
# whichever replica there is, and verifies its certificate. Notes the codes of the answers, and what was wrong otherwise.
admit() {
	local at
	at="http://localhost$(path pods)"
	annotated_pod load gated | jq '.metadata |= (del(.name) | .generateName = "load-")' >"$1/pod"
	: >"$1/codes"
	: >"$1/failures"
	while [[ -d $1 && ! -e $1/enough ]]; do
		send "$1" --parallel --parallel-max 40 "$at?dryRun=All&number=[1-40]"
		send "$1" "$at?number=[0-0]"
		sleep 0.5
	done
}
# send DIRECTORY CURL ARGUMENTS...
send() {
	curl -sS --no-progress-meter --max-time 60 --unix-socket "$E2E_PROXY" -H "Content-Type: application/json" --data-binary "@$1/pod" \
		-o "$1/answer-#1" -w '%{http_code}\n' "${@:2}" >>"$1/codes" 2>>"$1/failures" || true
	# A pod that was not changed was admitted by nobody.
	jq -r 'if .kind != "Pod" then "\(now | todate): \(.message)" elif any(.spec.volumes[]; .csi) then empty else "a pod without its volume" end' \
		"$1"/answer-* >>"$1/failures"
	rm -f "$1"/answer-*
}

@test "a class that nobody uses is swept, and none that a pod names or is just being admitted with" {
	export NS=$SWEPT
	unused=$(<"$BATS_FILE_TMPDIR/unused")
	eventually $((GRACE + 30)) "the class that nobody uses is swept" gone "secretproviderclasses/$unused"
	same "classes that pods name" "$(classes | count)" "$NUMBER"

	# Now all pods go, and the next sweep takes one class after the other, in the order of their names. As soon as the first one
	# is gone, the pods are made anew, the other way round: somewhere the two meet.
	before=$(named) events=$BATS_TEST_TMPDIR/events order=$BATS_TEST_TMPDIR/order
	mapfile -t names < <(sort -r <<<"$before" | cut -d ' ' -f 2)
	jq -sc '(map({(.metadata.name): .}) | add) as $pods | $ARGS.positional[] | $pods[.]' --args "${names[@]}" <"$BATS_FILE_TMPDIR/asking" >"$order"
	watch "secretproviderclasses?labelSelector=leasehold.dev/made-by=webhook" >"$events" 3>&- &
	watcher=$!
	delete pods
	timeout 30 sh -c 'until grep -q "\"type\":\"DELETED\"" "$1"; do sleep 0.02; done' sh "$events" || fail "no sweep has begun"
	makers=()
	for turn in 0 1 2 3; do
		awk -v turn="$turn" 'NR % 4 == turn' "$order" | create pods 3>&- &
		makers+=($!)
	done
	for maker in "${makers[@]}"; do wait "$maker"; done
	turn=$(sweeps)
	eventually 30 "the sweep is over, for there is another" another_sweep "$turn"
	kill "$watcher"

	same "pods and their classes" "$(named)" "$before"
	same "classes that are not there though pods name them" "$(comm -23 <(named | cut -d ' ' -f 1) <(classes))" ""
	say "$(grep -c '"type":"DELETED"' "$events") of $NUMBER classes were swept before their pods came, and made anew; the others stayed"
}
# named: the classes that pods name, sorted, each with the pod's name.
named() { get pods | jq -r '.items[] | "\(.spec.volumes[] | .csi.volumeAttributes.secretProviderClass // empty) \(.metadata.name)"' | sort; }
# sweeps: changes with each turn of the replica that sweeps.
sweeps() { api GET "/apis/coordination.k8s.io/v1/namespaces/$SYSTEM/leases/$RELEASE-webhook" | jq -r .metadata.resourceVersion; }
another_sweep() { [[ $(sweeps) != "$1" ]]; }
