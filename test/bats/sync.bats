#!/usr/bin/env bats
# The driver makes Secrets from a volume's files when the class asks for it.

load lib/all

setup() {
	grant sync
	credentials sync | class sync '.spec.secretObjects = [{secretName: "synced", type: "Opaque", data: [
		{objectName: "db/username", key: "user"}, {objectName: "db/password", key: "password"}]}]'
}

@test "a synced Secret has a pod's credentials, stays with the next pod, and goes with the last" {
	pods sync sync-a sync-b
	starts 60 sync-a sync-b
	eventually 30 "the Secret is there" there secrets/synced
	user=$(get secrets/synced | jq -r '.data.user | @base64d')
	users=$(for name in sync-a sync-b; do queries "$name"; done)
	contains "users of the pods" "$users" "$user"
	# user and password of the Secret belong together
	same "who logs in with the Secret" "$(PGUSER=$user PGPASSWORD=$(get secrets/synced |
		jq -r '.data.password | @base64d') psql -XAtc 'select current_user')" "$user"
	delete pods/sync-a
	eventually 30 "the first pod is gone" gone pods/sync-a
	polls_go_on 3
	there secrets/synced
	delete pods/sync-b
	eventually 60 "the Secret has gone with the last pod" gone secrets/synced
}

@test "a container waits for the synced Secret that its environment needs, and logs in with it" {
	pod env sync '.spec.containers[0].env += [
		{name: "PGUSER", valueFrom: {secretKeyRef: {name: "synced", key: "user"}}},
		{name: "PGPASSWORD", valueFrom: {secretKeyRef: {name: "synced", key: "password"}}}]'
	starts 90 env
	same "who it is by its environment" "$(in_pod env psql -XAtc 'select current_user')" "$(read_file env db/username)"
}
