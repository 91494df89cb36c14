#!/usr/bin/env bash
# The webhook, and what people write for the injector.

# install_webhook [HELM ARGUMENTS...]: the release with the webhook; returns when both replicas are ready.
install_webhook() {
	install_provider --set webhook.enabled=true \
		--set "webhook.image.repository=${E2E_WEBHOOK_IMAGE%:*}" --set "webhook.image.tag=${E2E_WEBHOOK_IMAGE##*:}" "$@" || return
	eventually 60 "both replicas of the webhook are ready" webhook_has 2
}

# webhook_has N: so many replicas are ready, and no others are on their way.
webhook_has() {
	local replicas
	replicas=$(webhook_pods | jq -r '"\(map(select(any(.status.conditions[]?; .type == "Ready" and .status == "True"))) | length) of \(length)"') &&
		same "replicas of the webhook that are ready" "$replicas" "$1 of $1"
}

# webhook_pods: as a JSON list; those that are ending too.
webhook_pods() { NS=$SYSTEM get "pods?labelSelector=$WEBHOOK_SELECTOR" | jq .items; }

# kill_webhook: ends all replicas for good, by SIGKILL: they take leave of nobody, and nobody starts them again.
kill_webhook() {
	local pods pids
	on_node true && pods=$(webhook_pods | jq -r '.[].metadata.uid') || return
	# shellcheck disable=SC2086 # one UID, one process id a word
	pids=$(processes webhook $pods) && same "processes of the webhook" "$(count <<<"$pids")" 2 &&
		NS=$SYSTEM patch "deployments/$RELEASE-webhook" '{"spec": {"replicas": 0}}' && on_node 'kill -KILL "$@"' $pids &&
		eventually 30 "no replica is left" webhook_has 0
}

# revive_webhook brings both back.
revive_webhook() {
	NS=$SYSTEM patch "deployments/$RELEASE-webhook" '{"spec": {"replicas": 2}}' &&
		eventually 60 "both replicas of the webhook are back" webhook_has 2
}

# annotated NAME REPLICAS [FILTER]: a Deployment as people write it for the injector: nothing in it speaks of Leasehold. Its
# containers use the default template's file. In the jq filter, annotation(KEY; VALUE) sets one more, without its prefix, and
# gated keeps the pods from ever starting.
annotated() {
	jq -n --arg name "$1" --argjson replicas "$2" --arg image "$E2E_APP_IMAGE" \
		--arg host "$PGHOST" --arg port "${PGPORT:-5432}" --arg database "${PGDATABASE:-postgres}" '
	def annotation($key; $value): .spec.template.metadata.annotations["vault.hashicorp.com/\($key)"] = $value;
	def gated: .spec.template.spec.schedulingGates = [{name: "leasehold.dev/e2e"}];
	{
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
		}
	} | '"${3:-.}"
}

# annotated_pod NAME [FILTER]: a pod of such a Deployment, made by nobody. The filter is as above: it sees the Deployment.
annotated_pod() {
	annotated "$1" 1 "${2:-.}" | jq -c '.metadata as {$name} | .spec.template |
		{apiVersion: "v1", kind: "Pod", metadata: ({$name} + .metadata), spec}'
}

# runs NAME N: so many pods of the Deployment are ready.
runs() { same "ready pods of $1" "$(get "deployments/$1" | jq '.status.readyReplicas // 0')" "$2"; }

# pods_of NAME: their names, one a line.
pods_of() { get "pods?labelSelector=app=$1" | jq -r '.items[] | select(.metadata.deletionTimestamp == null) | .metadata.name'; }

# classes: the names of those that the webhook has made in the namespace, sorted.
classes() { get "secretproviderclasses?labelSelector=leasehold.dev/made-by=webhook" | jq -r '.items[].metadata.name' | sort; }

# class_of POD: the class of the volume that the webhook has given to the pod; nothing if it has none.
class_of() { get "pods/$1" | jq -r '.spec.volumes[] | select(.name == "vault-secrets") | .csi.volumeAttributes.secretProviderClass'; }

# asks POD: who the pod is in PostgreSQL, by what the injector's default template makes of the credentials.
asks() {
	# shellcheck disable=SC2016 # the pod's shell has these variables
	in_pod "$1" sh -c 'file=/vault/secrets/db-creds
		PGUSER=$(sed -n "s/^username: //p" $file) PGPASSWORD=$(sed -n "s/^password: //p" $file) exec psql -XAtc "select current_user"'
}
