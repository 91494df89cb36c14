#!/usr/bin/env bats
# Pods that are annotated for Vault's sidecar injector, with Leasehold's webhook in its place.

load lib/all

setup_file() { install_webhook; }

# teardown_file leaves the release as other files expect it. What the webhook has made for pods goes with them.
teardown_file() {
	kubectl delete deployments --all -n "$NS" --wait=true >/dev/null
	install_provider
}

@test "an annotated Deployment starts without a sidecar, and five replicas are five users of one class" {
	grant wh
	said=$(annotated wh 1 | kubectl apply -n "$NS" -f - 2>&1)
	lacks "what kubectl said" "$said" Warning
	eventually 60 "the pod is ready" runs wh 1
	first=$(pods_of wh)
	same "containers of the pod" "$(get "pods/$first" | jq -r '[.spec.containers[].name] | join(" ")')" app
	contains "the user" "$(asks "$first")" v-kubernet-wh-

	kubectl scale deployment wh -n "$NS" --replicas=5 >/dev/null
	eventually 90 "all five are ready" runs wh 5
	who=$(for name in $(pods_of wh); do asks "$name"; done | sort)
	same "users of the pods" "$who" "$(users wh)"
	has_users wh 5
	same "classes" "$(classes | count)" 1

	kubectl delete deployment wh -n "$NS" --wait=true >/dev/null
	eventually 60 "no user of theirs is left" has_users wh 0
}

@test "a Job whose secret has a template completes by itself, and its user goes though the pod is still there" {
	grant whjob
	annotated whjob 1 '
		annotation("agent-inject-template-db-creds"; "{{ with secret \"database/creds/whjob\" }}
			export PGUSER=\u0027{{ .Data.username }}\u0027 PGPASSWORD=\u0027{{ .Data.password }}\u0027{{ end }}\n") |
		.spec.template.spec |= (.restartPolicy = "Never" | .containers[0] |= (del(.readinessProbe) |
			.command = ["sh", "-ec", ". /vault/secrets/db-creds; exec psql -XAtc \u0027select current_user\u0027"])) |
		{apiVersion: "batch/v1", kind: "Job", metadata, spec: {backoffLimit: 0, template: .spec.template}}' | create jobs
	eventually 60 "the Job is complete" completed whjob
	job=$(pods_of whjob)
	same "containers of its pod" "$(get "pods/$job" | jq -r '[.spec.containers[].name] | join(" ")')" app
	contains "the user" "$(log "$job")" v-kubernet-whjob-
	eventually 60 "its user is gone" has_users whjob 0
	there "pods/$job"
}
completed() { get "jobs/$1" | jq -e '.status.succeeded == 1' >/dev/null; }

@test "what cannot work is refused with every reason, and kubectl apply tells all of it before" {
	grant whbad
	said=$(annotated whbad 0 'annotation("agent-inject-sercet-db"; "database/creds/whbad")' | kubectl apply -n "$NS" -f - 2>&1)
	contains "what kubectl said of the typo" "$said" Warning agent-inject-sercet-db agent-inject-secret-db
	filter='annotation("agent-inject-command-db-creds"; "kill -HUP 1") | annotation("agent-configmap"; "mine") | annotation("rol"; "x")'
	said=$(annotated whbad 0 "$filter" | kubectl apply -n "$NS" -f - 2>&1)
	contains "what kubectl said of the Deployment" "$said" Warning "pods of this Deployment will be refused" \
		agent-inject-command-db-creds agent-configmap "/rol: unknown"
	if said=$(annotated_pod whbad "$filter" | kubectl create -n "$NS" -f - 2>&1); then
		fail "the pod was admitted: $said"
	fi
	contains "why the pod was refused" "$said" agent-inject-command-db-creds agent-configmap "/rol: unknown"

	# The API server's own conditions tell whether the webhook is asked: for annotations on any of these floors.
	said=$(annotated whfloor 0 '.metadata.annotations = .spec.template.metadata.annotations | del(.spec.template.metadata.annotations)' |
		kubectl apply -n "$NS" -f - 2>&1)
	contains "what kubectl said of annotations on the Deployment itself" "$said" Warning "no effect on the Deployment itself" \
		"move it to spec.template.metadata.annotations"
	said=$(annotated whcron 0 "$filter | $CRON_JOB" | kubectl apply -n "$NS" -f - 2>&1)
	contains "what kubectl said of the CronJob" "$said" Warning "pods of this CronJob will be refused" agent-inject-command-db-creds
	said=$(annotated whcron2 0 "$CRON_JOB"' | .spec.jobTemplate |= (.metadata.annotations = .spec.template.metadata.annotations |
		del(.spec.template.metadata.annotations))' | kubectl apply -n "$NS" -f - 2>&1)
	contains "what kubectl said of annotations on the CronJob's Jobs" "$said" Warning "no effect on the CronJob itself" \
		"move it to spec.jobTemplate.spec.template.metadata.annotations"

	said=$(faulty_class whbad | kubectl apply -n "$NS" -f - 2>&1)
	contains "what kubectl said of the class" "$said" secretproviderclass.secrets-store.csi.x-k8s.io/whbad Warning \
		"did you mean roleName?" "parameter roleName is missing" "outside the operator's policy" "objects[0]" "objects[1]"
}

# What makes a CronJob of a Deployment, for jq; it never runs.
CRON_JOB='.spec.template.spec.restartPolicy = "Never" | {apiVersion: "batch/v1", kind: "CronJob", metadata, spec: {
	schedule: "0 0 1 1 *", suspend: true, jobTemplate: {spec: {template: .spec.template}}}}'

# faulty_class NAME: a class with many faults.
faulty_class() {
	jq -n --arg name "$1" '{apiVersion: "secrets-store.csi.x-k8s.io/v1", kind: "SecretProviderClass", metadata: {name: $name},
		spec: {provider: "vault", parameters: {rolName: "app", vaultAddress: "https://elsewhere.example",
			objects: "- {objectName: a}\n- {objectName: ../b, secretPath: kv1/b}\n"}}}'
}

@test "a pod that the injector has seen to is left alone" {
	annotated_pod whdone 'annotation("agent-inject-status"; "injected") | del(.spec.template.spec.containers[0].readinessProbe)' | create pods
	eventually 30 "the pod is ready" ready whdone
	same "its volumes of the driver" "$(get pods/whdone | jq '[.spec.volumes[]? | select(.csi)] | length')" 0
	same "classes" "$(classes)" ""
}

@test "with both replicas killed, only annotated pods wait, and start by themselves when the webhook is back" {
	grant whaway
	kill_webhook
	credentials whaway | class whaway
	began=$(now)
	pod whaway whaway
	starts 60 whaway
	say "a pod without annotations was ready $(since "$began") s after it was made"

	if said=$(annotated_pod whbare | kubectl create -n "$NS" -f - 2>&1); then
		fail "an annotated pod was admitted without a webhook: $said"
	fi
	contains "why it was refused" "$said" 'failed calling webhook "pods.leasehold.dev"'
	faulty_class whfault | kubectl apply -n "$NS" -f - >/dev/null
	annotated whaway 2 | kubectl apply -n "$NS" -f - >/dev/null
	eventually 30 "an event says why there are no pods" without_webhook
	same "pods of the Deployment" "$(pods_of whaway)" ""

	revive_webhook
	began=$(now)
	eventually 120 "the Deployment's pods are ready" runs whaway 2
	say "the Deployment's pods were ready $(since "$began") s after the webhook"
	for name in $(pods_of whaway); do contains "the user" "$(asks "$name")" v-kubernet-whaway-; done
}
without_webhook() {
	local text
	text=$(get "events?fieldSelector=reason=FailedCreate,involvedObject.kind=ReplicaSet" |
		jq -r '.items[] | select(.involvedObject.name | startswith("whaway-")) | .message') &&
		contains "FailedCreate of the ReplicaSet" "${text:-no event}" 'failed calling webhook "pods.leasehold.dev"'
}

@test "a dry run writes nothing, and what becomes of every golden pod is valid for the API server" {
	quiet
	service_account shop
	said=$(annotated_pod whdry | kubectl create --dry-run=server -n "$NS" -o json -f - | jq -r '.spec.volumes[] | select(.csi) | .name')
	same "the driver's volume" "$said" vault-secrets

	# As people write them. Left out are cases with a policy or a namespace's defaults of their own, those about the address of
	# Vault, which is another one here, pods of the system's namespaces, images of static pods, which are for kubelet to make,
	# and keys that end with a dash, which no object may have.
	given=$BATS_TEST_TMPDIR/given made=$BATS_TEST_TMPDIR/made nobodys='vault.hashicorp.com/[a-z-]*-: '
	golden in "$given" "^(policy|namespace):|vault.hashicorp.com/service:|^  namespace: kube-|kubernetes.io/config.mirror|$nobodys"
	dry_run "$given"
	comm -12 <(find "$given" -name '*.yaml' | cases) <(grep -l '^denied:' "$GOLDEN"/*.out.yaml | cases) >"$given/expected"
	sed -nE 's/^Error from server .*error when creating "([^"]*)": admission webhook "pods.leasehold.dev" denied the request: .*/\1/p' \
		"$given/said" | cases >"$given/denied"
	same "cases that are decided in another way than in the unit tests" "$(comm -3 "$given/denied" "$given/expected")" ""

	# What the unit tests make of all cases, under all policies: without the annotation, so that nobody is asked any more.
	golden out "$made" "^(denied|skipped):|$nobodys"
	sed -i '/^    vault\.hashicorp\.com\/agent-inject: /d' "$made"/*.yaml
	dry_run "$made"
	same "translated pods that were denied" "$(grep 'denied the request: ' "$made/said")" ""
	say "of $(pods_in "$given") pods as people write them $(count <"$given/denied") were denied; $(pods_in "$made") translated ones are valid"
	same "classes" "$(classes)" ""
	same "pods" "$(get pods | jq '.items | length')" 0
}

GOLDEN=$ROOT/internal/webhook/testdata/golden

# golden in|out DIRECTORY SKIP: the pods of the golden files of that kind, a file each, in the namespace of the tests; without
# those files that have a line of the pattern SKIP.
golden() {
	mkdir "$2"
	grep -LE -e "$3" "$GOLDEN"/*."$1".yaml | xargs awk -v directory="$2" -v namespace="$NS" '
		FNR == 1 { close(out); out = FILENAME; sub(/.*\//, directory "/", out); second = 0 }
		second { sub(/^  namespace: .*/, "  namespace: " namespace); print >out }
		/^---$/ { second = 1 }'
}

# cases: the names of the cases whose files come in, sorted.
cases() { sed -E 's/.*\///; s/\.(in|out)\.yaml$//' | sort; }

# pods_in DIRECTORY: how many pods it has.
pods_in() { find "$1" -name '*.yaml' | count; }

# dry_run DIRECTORY: asks the API server for each pod in it, and keeps what it says in the file "said". Each is either taken or
# denied by an admission webhook.
dry_run() {
	kubectl create --dry-run=server -f "$1" >"$1/said" 2>&1 || true
	same "what was said of other pods" "$(grep -vE '^Warning: |^pod/.* \(server dry run\)$|denied the request: ' "$1/said")" "" &&
		same "pods of which something was said" "$(grep -cE '^pod/|denied the request: ' "$1/said")" "$(pods_in "$1")"
}
