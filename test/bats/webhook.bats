#!/usr/bin/env bats
# Pods that are annotated for Vault's sidecar injector, with Leasehold's webhook in its place.

load lib/all

setup_file() {
	install_provider --set webhook.enabled=true \
		--set "webhook.image.repository=${E2E_WEBHOOK_IMAGE%:*}" --set "webhook.image.tag=${E2E_WEBHOOK_IMAGE##*:}"
	eventually 60 "both replicas of the webhook are ready" webhook_has 2
}

# teardown_file leaves the release as other files expect it. What the webhook has made for pods goes with them.
teardown_file() {
	kubectl delete deployments --all -n "$NS" --wait=true >/dev/null
	install_provider
}

# webhook_has N: so many replicas are ready.
webhook_has() {
	local ready
	ready=$(NS=$SYSTEM get "deployments/$RELEASE-webhook" | jq '.status.readyReplicas // 0')
	same "webhooks that are ready" "$ready" "$1"
}

# annotated NAME REPLICAS: a Deployment as people write it for the injector: nothing in it speaks of Leasehold. Its containers
# use the default template's file.
annotated() {
	jq -n --arg name "$1" --argjson replicas "$2" --arg image "$E2E_APP_IMAGE" \
		--arg host "$PGHOST" --arg port "${PGPORT:-5432}" --arg database "${PGDATABASE:-postgres}" '{
		apiVersion: "apps/v1", kind: "Deployment", metadata: {name: $name},
		spec: {
			replicas: $replicas, selector: {matchLabels: {app: $name}},
			template: {
				metadata: {labels: {app: $name}, annotations: {
					"vault.hashicorp.com/agent-inject": "true",
					"vault.hashicorp.com/role": $name,
					"vault.hashicorp.com/agent-inject-secret-db-creds": "database/creds/\($name)"
				}},
				spec: {
					serviceAccountName: "app", enableServiceLinks: false, terminationGracePeriodSeconds: 1,
					containers: [{
						name: "app", image: $image, imagePullPolicy: "IfNotPresent",
						command: ["sh", "-c", "trap \u0027exit 0\u0027 TERM; while :; do sleep 0.2; done"],
						env: [{name: "PGHOST", value: $host}, {name: "PGPORT", value: $port}, {name: "PGDATABASE", value: $database}],
						readinessProbe: {exec: {command: ["test", "-s", "/vault/secrets/db-creds"]}, periodSeconds: 1}
					}]
				}
			}
		}}'
}

# runs NAME N: so many pods of the Deployment are ready.
runs() { same "ready pods of $1" "$(kubectl get deployment "$1" -n "$NS" -o 'jsonpath={.status.readyReplicas}')" "$2"; }

# pods_of NAME: their names, one a line.
pods_of() { get "pods?labelSelector=app=$1" | jq -r '.items[] | select(.metadata.deletionTimestamp == null) | .metadata.name'; }

# asks POD: who the pod is in PostgreSQL, by what the injector's default template makes of the credentials.
asks() {
	# shellcheck disable=SC2016 # the pod's shell has these variables
	in_pod "$1" sh -c 'file=/vault/secrets/db-creds
		PGUSER=$(sed -n "s/^username: //p" $file) PGPASSWORD=$(sed -n "s/^password: //p" $file) exec psql -XAtc "select current_user"'
}

@test "an annotated Deployment starts without a sidecar, and five replicas are five users of one class" {
	grant wh
	annotated wh 1 | kubectl apply -n "$NS" -f - >"$BATS_TEST_TMPDIR/said" 2>&1
	lacks "what kubectl said" "$(cat "$BATS_TEST_TMPDIR/said")" Warning
	eventually 60 "the pod is ready" runs wh 1
	first=$(pods_of wh)
	same "containers of the pod" "$(get "pods/$first" | jq -r '[.spec.containers[].name] | join(" ")')" app
	contains "the user" "$(asks "$first")" v-kubernet-wh-

	kubectl scale deployment wh -n "$NS" --replicas=5 >/dev/null
	eventually 90 "all five are ready" runs wh 5
	who=$(for name in $(pods_of wh); do asks "$name"; done | sort)
	same "users of the pods" "$who" "$(users wh)"
	has_users wh 5
	same "classes" "$(get "secretproviderclasses?labelSelector=leasehold.dev/made-by=webhook" | jq '.items | length')" 1

	kubectl delete deployment wh -n "$NS" --wait=true >/dev/null
	eventually 60 "no user of theirs is left" has_users wh 0
}

@test "what cannot work is refused with every reason, a typo is told at apply, and pods without annotations never notice" {
	grant whbad
	said=$(annotated whbad 0 | jq '.spec.template.metadata.annotations += {
		"vault.hashicorp.com/agent-inject-sercet-db": "database/creds/whbad"}' | kubectl apply -n "$NS" -f - 2>&1)
	contains "what kubectl said of the typo" "$said" Warning agent-inject-sercet-db agent-inject-secret-db
	annotated whbad 0 | jq '.spec.template.metadata.annotations += {
		"vault.hashicorp.com/agent-inject-command-db-creds": "kill -HUP 1",
		"vault.hashicorp.com/agent-configmap": "mine"}' >"$BATS_TEST_TMPDIR/whbad.json"
	said=$(kubectl apply -n "$NS" -f "$BATS_TEST_TMPDIR/whbad.json" 2>&1)
	contains "what kubectl said" "$said" Warning agent-inject-command-db-creds agent-configmap

	jq '.spec.template | {apiVersion: "v1", kind: "Pod", metadata: (.metadata + {name: "whbad"}), spec}' "$BATS_TEST_TMPDIR/whbad.json" >"$BATS_TEST_TMPDIR/pod.json"
	if said=$(kubectl create -n "$NS" -f "$BATS_TEST_TMPDIR/pod.json" 2>&1); then
		fail "the pod was admitted: $said"
	fi
	contains "why the pod was refused" "$said" agent-inject-command-db-creds agent-configmap

	kubectl scale deployment "$RELEASE-webhook" -n "$SYSTEM" --replicas=0 >/dev/null
	# One that is told to end serves on for a while, until everybody calls another.
	kubectl wait pods --for=delete --selector=app.kubernetes.io/component=webhook -n "$SYSTEM" --timeout=60s >/dev/null
	grant whnone
	credentials whnone | class whnone
	pod whnone whnone
	starts 60 whnone
	if said=$(jq 'del(.metadata.annotations["vault.hashicorp.com/agent-inject-command-db-creds", "vault.hashicorp.com/agent-configmap"])' \
		"$BATS_TEST_TMPDIR/pod.json" | kubectl create -n "$NS" -f - 2>&1); then
		fail "an annotated pod was admitted without a webhook: $said"
	fi
	contains "why it was refused" "$said" pods.leasehold.dev
	kubectl scale deployment "$RELEASE-webhook" -n "$SYSTEM" --replicas=2 >/dev/null
	eventually 60 "both replicas of the webhook are back" webhook_has 2
}
