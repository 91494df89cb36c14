#!/usr/bin/env bash
# Classes and pods as tenants write them.

# credentials NAME: objects for user and password of the database role.
credentials() {
	cat <<-YAML
		- {objectName: db/username, secretPath: database/creds/$1, secretKey: username}
		- {objectName: db/password, secretPath: database/creds/$1, secretKey: password}
	YAML
}

# class NAME [FILTER] <OBJECTS: makes a SecretProviderClass for the Vault role of that name; the jq filter changes it.
class() {
	jq -n --arg name "$1" --rawfile objects /dev/stdin '{
		apiVersion: "secrets-store.csi.x-k8s.io/v1", kind: "SecretProviderClass", metadata: {name: $name},
		spec: {provider: "vault", parameters: {roleName: $name, objects: $objects}}
	} | '"${2:-.}" | apply secretproviderclasses
}

# pod_json NAME CLASS [FILTER]: a pod whose container looks at its first instant whether its secrets are there; see
# app.sh. The jq filter changes it.
pod_json() {
	jq -n --arg name "$1" --arg class "$2" --arg image "$E2E_APP_IMAGE" \
		--arg host "$PGHOST" --arg port "${PGPORT:-5432}" --arg database "${PGDATABASE:-postgres}" \
		--rawfile script "$LIB/app.sh" '
	def volume($name; $class): {name: $name, csi: {driver: "secrets-store.csi.k8s.io", readOnly: true,
		volumeAttributes: {secretProviderClass: $class}}};
	def mount($name): {name: $name, mountPath: "/\($name)", readOnly: true};
	def setting($name; $value): .spec.containers[0].env += [{name: $name, value: $value}];
	{
		apiVersion: "v1", kind: "Pod", metadata: {name: $name},
		spec: {
			serviceAccountName: "app", automountServiceAccountToken: false, enableServiceLinks: false,
			terminationGracePeriodSeconds: 1,
			containers: [{
				name: "app", image: $image, imagePullPolicy: "IfNotPresent", command: ["sh", "-c", $script],
				env: [{name: "PGHOST", value: $host}, {name: "PGPORT", value: $port}, {name: "PGDATABASE", value: $database}],
				volumeMounts: [mount("secrets")]
			}],
			volumes: [volume("secrets"; $class)]
		}
	} | '"${3:-.}"
}

# pod NAME CLASS [FILTER]
pod() { pod_json "$@" | create pods; }

# pods CLASS NAME...
pods() {
	local class=$1 name
	shift
	for name; do pod_json "$name" "$class"; done | create pods
}

# log POD: what its container "app" has said.
log() { api GET "$(path "pods/$1/log?container=app")"; }

# starts SECONDS POD...: the pods start, and each had its secrets at its first instant.
starts() {
	local seconds=$1 name
	shift
	eventually "$seconds" "all pods are ready" ready "$@" || return
	for name; do
		eventually 10 "pod $name has looked at its secrets" looked "$name" || return
	done
	kept "$@"
}
ready() {
	local waiting
	waiting=$(get pods | jq -r '[.items[] | select(any(.status.conditions[]?; .type == "Ready" and .status == "True")) |
		.metadata.name] as $ready | $ARGS.positional - $ready | join(", ")' --args "$@") && [[ -z $waiting ]] || fail "not yet: $waiting"
}
looked() {
	local text
	text=$(log "$1") && [[ $text == *SECRETS* ]]
}

# user POD: the database user that the pod has seen last in its files.
user() { log "$1" | awk '$1 == "USER" { user = $2 } END { print user }'; }

# kept POD...: the pods run as they began, and never saw a volume without its secrets. app.sh looks all the time.
kept() {
	local name text restarts
	restarts=$(get pods | jq -r '[.items[] | select(.metadata.name | IN($ARGS.positional[])) | .status.containerStatuses[].restartCount] |
		unique | join(" ")' --args "$@") || return
	same "restarts of pods $*" "$restarts" 0 || return
	for name; do
		text=$(log "$name") || return
		contains "pod $name: log" "$text" "SECRETS THERE" || return
		lacks "pod $name: log" "$text" "SECRETS MISSING" || return
	done
}

# waits POD...: the pods have not started, and none of their containers has ever run.
waits() {
	local others
	others=$(get pods | jq -r '[.items[] | select(.status.phase == "Pending" and
		all(.status.containerStatuses[]?; .started != true and .restartCount == 0)) | .metadata.name] as $waiting |
		$ARGS.positional - $waiting | join(", ")' --args "$@") || return
	[[ -z $others ]] || fail "pods that do not wait any more: $others"
}

# still_waits SECONDS POD...: they wait all that time, which is what the case is about.
still_waits() {
	local until=$((${EPOCHREALTIME%.*} + $1))
	while ((${EPOCHREALTIME%.*} < until)); do
		waits "${@:2}" || return
		sleep 0.5
	done
}

# reason POD: the messages of its FailedMount events.
reason() { get "events?fieldSelector=reason=FailedMount,involvedObject.name=$1" | jq -r '.items[].message'; }

# told SECONDS POD PART...: a FailedMount event of the pod has all the parts, and the pod still waits.
told() {
	eventually "$1" "an event of pod $2 says why it waits" tells "${@:2}" && waits "$2"
}
tells() {
	local text
	text=$(reason "$1") && contains "FailedMount of pod $1" "${text:-no event}" "${@:2}"
}

# in_pod POD COMMAND...
in_pod() { kubectl exec "$1" -n "$NS" -c app -- "${@:2}"; }

# read_file POD FILE: the file below /secrets.
read_file() { in_pod "$1" cat "/secrets/$2"; }

# queries POD [DIRECTORY]: asks PostgreSQL from inside the pod, with the pod's own credentials, and prints who it is there.
queries() {
	in_pod "$1" sh -c 'PGUSER=$(cat "$1/db/username") PGPASSWORD=$(cat "$1/db/password") exec psql -XAtc "select current_user"' \
		sh "${2:-/secrets}"
}

# fingerprint POD: name, mode, owner, time and digest of every file in /secrets, and the directory that holds them now.
fingerprint() {
	in_pod "$1" sh -c 'cd /secrets && readlink ..data && find -L . -path "./..*" -prune -o -type f -print | sort | while read -r f; do
		echo "$f $(stat -L -c "%a %u:%g %y %s" "$f") $(sha256sum <"$f")"
	done'
}
