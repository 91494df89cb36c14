#!/usr/bin/env bash
# Kubernetes, as far as it has nothing to do with this product. The suite asks the API server thousands of times: "kubectl
# proxy", which knows how to log in to any cluster, listens on a Unix socket, and curl asks it. A kubectl for each question would
# keep one of two cores busy with its start. E2E_PROXY is the socket.

# api METHOD PATH [JSON [CONTENT TYPE]]: one request; prints the answer. A refusal is told in the API server's words.
api() {
	local method=$1 path=$2 body=${3:-} answer data=()
	[[ -z $body ]] || data=(--data-binary @- -H "Content-Type: ${4:-application/json}")
	answer=$(curl -gsS --fail-with-body --max-time 60 --unix-socket "$E2E_PROXY" -X "$method" "${data[@]}" "http://localhost$path" \
		<<<"$body") || fail "kubernetes: $method $path: $(jq -r '.message? // "?"' <<<"${answer:-{\}}" 2>/dev/null)" || return
	printf '%s\n' "$answer"
}

# path KIND[/NAME...][?QUERY]: where objects of the namespace NS are.
path() {
	case ${1%%[/?]*} in
	deployments | daemonsets) echo "/apis/apps/v1/namespaces/$NS/$1" ;;
	secretproviderclass*) echo "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/$NS/$1" ;;
	jobs) echo "/apis/batch/v1/namespaces/$NS/$1" ;;
	csidrivers | csinodes) echo "/apis/storage.k8s.io/v1/$1" ;;
	namespaces | nodes) echo "/api/v1/$1" ;;
	clusterrolebindings) echo "/apis/rbac.authorization.k8s.io/v1/$1" ;;
	*) echo "/api/v1/namespaces/$NS/$1" ;;
	esac
}

# get KIND[/NAME][?QUERY]: prints the object or the list, as JSON.
get() { api GET "$(path "$1")"; }

# there KIND/NAME, gone KIND/NAME: conditions.
there() { get "$1" >/dev/null; }
gone() { [[ $(curl -gsS -o /dev/null -w '%{http_code}' --unix-socket "$E2E_PROXY" "http://localhost$(path "$1")") == 404 ]]; }

# apply KINDS <JSON: makes the object, or makes it what is said. Its kind and name are in it; KINDS is the plural.
apply() {
	local object
	object=$(jq -c .) && api PATCH "$(path "$1/$(jq -r .metadata.name <<<"$object")")?fieldManager=e2e&force=true" "$object" \
		application/apply-patch+yaml >/dev/null
}

# create KINDS <JSON: makes objects, one after the other, which must not be there.
create() {
	local object
	while read -r object; do
		api POST "$(path "$1")" "$object" >/dev/null || return
	done < <(jq -c .)
}

# patch KIND/NAME JSON: a merge patch.
patch() { api PATCH "$(path "$1")" "$2" application/merge-patch+json >/dev/null; }

# delete KIND[/NAME]: the object, or all of them; does not wait.
delete() { api DELETE "$(path "$1")" >/dev/null; }

# force KIND/NAME: deletes it without a grace period: the API server forgets it at once, whatever still runs.
force() { api DELETE "$(path "$1")" '{"gracePeriodSeconds": 0}' >/dev/null; }

# evict POD: as a drain of its node does.
evict() {
	jq -n --arg name "$1" '{apiVersion: "policy/v1", kind: "Eviction", metadata: {name: $name}}' | create "pods/$1/eviction"
}

namespace() { jq -n --arg name "$1" '{apiVersion: "v1", kind: "Namespace", metadata: {name: $name}}' | apply namespaces; }
service_account() {
	jq -n --arg name "$1" '{apiVersion: "v1", kind: "ServiceAccount", metadata: {name: $name}}' | apply serviceaccounts
}

# quiet: waits until no pod of earlier cases is left, so that what is counted belongs to the case.
quiet() { eventually 60 "no pod of earlier cases is left" no_pods; }
no_pods() {
	local pods
	pods=$({ get pods && NS=$OTHER get pods; } | jq -r '.items[].metadata.name') && [[ -z $pods ]] || fail "$pods"
}

# node_ready: every node is, by a heartbeat of the last ten seconds.
node_ready() {
	get nodes | jq -e 'all(.items[].status.conditions[] | select(.type == "Ready"); .status == "True")' >/dev/null &&
		api GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases | jq -e 'all(.items[];
			(.spec.renewTime | sub("\\..*Z$"; "Z") | fromdate) > now - 11)' >/dev/null
}

# watch KIND?QUERY: prints every change from now on, a line of JSON each, first what is there; it runs until it is ended.
watch() { exec curl -gNsS --unix-socket "$E2E_PROXY" "http://localhost$(path "$1")&watch=true"; }
