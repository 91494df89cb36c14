#!/usr/bin/env bats
# Inline volumes of every kind that a cluster shows something new about. What the files hold exactly is the business of the
# integration tests.

load lib/all

setup_file() { # one database and one set of secrets serve all cases here
	grant mount
	vault PUT kv1/mount '{"word": "open sesame 5d1c", "number": 42}'
	vault PUT kv/data/mount '{"data": {"word": "first 81c7e2"}}' >/dev/null
	vault PUT kv/data/mount '{"data": {"word": "second 44f0ab"}}' >/dev/null
}
setup() { # each case's end deletes the classes
	credentials mount | class mount
}

@test "a pod queries PostgreSQL as the user that Vault made for it" {
	pod one mount
	starts 60 one
	user=$(queries one)
	contains "the user" "$user" v-kubernet-mount-
	same "the user in the file" "$(read_file one db/username)" "$user"
	contains "users in PostgreSQL" "$(users mount)" "$user"
}

@test "two pods have two database users" {
	pods mount two-a two-b
	starts 60 two-a two-b
	unlike "users" "$(queries two-a)" "$(queries two-b)"
}

@test "every pod of a Deployment has a database user of its own" {
	pod_json web mount '. as $pod | {apiVersion: "apps/v1", kind: "Deployment", metadata: {name: "web"},
		spec: {replicas: 3, selector: {matchLabels: {app: "web"}},
			template: {metadata: {labels: {app: "web"}}, spec: $pod.spec}}}' | apply deployments
	eventually 60 "the Deployment is available" available web
	names=$(get pods?labelSelector=app=web | jq -r '.items[].metadata.name')
	users=$(for name in $names; do queries "$name"; done)
	same "different users" "$(sort -u <<<"$users" | count)" 3
}

available() { get "deployments/$1" | jq -e '.status.availableReplicas == .spec.replicas' >/dev/null; }

@test "two volumes of one pod have two database users, and both work" {
	pod volumes mount '.spec.volumes += [volume("secrets2"; "mount")] | .spec.containers[0].volumeMounts += [mount("secrets2")]'
	starts 60 volumes
	unlike "users" "$(queries volumes)" "$(queries volumes /secrets2)"
}

@test "fields of KV version 1 and 2 are files under nested paths, with the modes that the class asks for" {
	class kv '.spec.parameters.roleName = "mount"' <<-YAML
		- {objectName: plain, secretPath: kv1/mount, secretKey: word}
		- {objectName: deep/er/number, secretPath: /v1/kv1/mount, secretKey: number, filePermission: 0600}
		- {objectName: deep/now, secretPath: kv/data/mount, secretKey: word, filePermission: 0440}
		- {objectName: deep/before, secretPath: "kv/data/mount?version=1", secretKey: word}
		- {objectName: all.json, secretPath: kv1/mount}
	YAML
	pod kv kv
	starts 60 kv
	shown=$(in_pod kv sh -c 'cd /secrets; for file; do echo "$file $(stat -L -c "%a %u:%g" "$file") $(cat "$file")"; done' \
		sh plain deep/er/number deep/now deep/before)
	same "files with mode, owner and text" "$shown" "plain 644 0:0 open sesame 5d1c
deep/er/number 600 0:0 42
deep/now 440 0:0 second 44f0ab
deep/before 644 0:0 first 81c7e2"
	same "all.json" "$(read_file kv all.json | jq -c .data)" '{"number":42,"word":"open sesame 5d1c"}'
}

@test "a certificate is issued by PUT with arguments, and its parts belong together" {
	args='secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: web.example, ttl: 1h}'
	class pki '.spec.parameters.roleName = "mount"' <<-YAML
		- {objectName: tls.crt, $args, secretKey: certificate}
		- {objectName: tls.key, $args, secretKey: private_key, filePermission: 0400}
		- {objectName: ca.crt, $args, secretKey: issuing_ca}
		- {objectName: bundle.json, $args}
	YAML
	pod pki pki
	starts 60 pki
	read_file pki tls.crt >"$BATS_TEST_TMPDIR/tls.crt"
	read_file pki ca.crt >"$BATS_TEST_TMPDIR/ca.crt"
	openssl verify -CAfile "$BATS_TEST_TMPDIR/ca.crt" "$BATS_TEST_TMPDIR/tls.crt"
	contains "subject" "$(openssl x509 -in "$BATS_TEST_TMPDIR/tls.crt" -noout -subject)" web.example
	public=$(openssl x509 -in "$BATS_TEST_TMPDIR/tls.crt" -noout -pubkey)
	same "the key's public half" "$(read_file pki tls.key | openssl pkey -pubout)" "$public"
	same "the bundle's certificate" "$(read_file pki bundle.json | jq -r .data.certificate)" "$(<"$BATS_TEST_TMPDIR/tls.crt")"
}

@test "a pod that is not root reads its files, but not those that are root's alone" {
	class nonroot '.spec.parameters.roleName = "mount"' <<-YAML
		- {objectName: open, secretPath: kv1/mount, secretKey: word, filePermission: 0444}
		- {objectName: closed, secretPath: kv1/mount, secretKey: word, filePermission: 0400}
	YAML
	pod nonroot nonroot '.spec.securityContext = {runAsUser: 65534, runAsGroup: 65534, runAsNonRoot: true,
		seccompProfile: {type: "RuntimeDefault"}} |
		.spec.containers[0].securityContext = {allowPrivilegeEscalation: false, capabilities: {drop: ["ALL"]}}'
	starts 60 nonroot
	same "who it is" "$(in_pod nonroot id -u)" 65534
	same "the open file" "$(read_file nonroot open)" "open sesame 5d1c"
	run in_pod nonroot cat /secrets/closed
	[[ $status -ne 0 ]] || fail "a file of mode 0400 was read by another user than root"
	contains "its words" "$output" "Permission denied"
}

@test "an init container finds the same files as the container after it" {
	# The two write what they see into a directory that they share.
	pod init mount '.spec.volumes += [{name: "shared", emptyDir: {}}] |
		.spec.containers[0].volumeMounts += [{name: "shared", mountPath: "/shared"}] |
		.spec.initContainers = [.spec.containers[0] | .name = "first" | .command = ["sh", "-c",
			"test -s /secrets/db/password && cat /secrets/db/username >/shared/user"]]'
	starts 60 init
	same "the user" "$(in_pod init cat /shared/user)" "$(queries init)"
}

@test "a class may name the operator's own Vault and another auth mount" {
	enable auth elsewhere '{"type": "kubernetes"}'
	vault PUT auth/elsewhere/config "$(kubernetes_config)"
	vault PUT auth/elsewhere/role/renamed "$(jq -n --arg namespace "$NS" '{bound_service_account_names: ["app"],
		bound_service_account_namespaces: [$namespace], audience: "vault", token_policies: ["mount"]}')"
	class elsewhere '.spec.parameters += {roleName: "renamed", vaultAuthMountPath: "elsewhere", vaultAddress: env.VAULT_ADDR}' <<-YAML
		- {objectName: word, secretPath: kv1/mount, secretKey: word}
	YAML
	pod elsewhere elsewhere
	starts 60 elsewhere
	same "word" "$(read_file elsewhere word)" "open sesame 5d1c"
}

@test "an authority in a nodePublishSecretRef verifies Vault, and a wrong one is refused until it is replaced" {
	[[ -n ${VAULT_CACERT:-} ]] || skip "VAULT_CACERT is empty: this Vault has no authority of its own"
	secret() { # the driver takes only Secrets with this label
		jq -n --rawfile pem "$1" '{apiVersion: "v1", kind: "Secret", metadata: {name: "vault-ca",
			labels: {"secrets-store.csi.k8s.io/used": "true"}}, stringData: {"ca.crt": $pem}}' | apply secrets
	}
	get configmaps/kube-root-ca.crt | jq -r '.data["ca.crt"]' >"$BATS_TEST_TMPDIR/wrong.crt"
	secret "$BATS_TEST_TMPDIR/wrong.crt"
	pod ca mount '.spec.volumes[0].csi.nodePublishSecretRef = {name: "vault-ca"}'
	told 30 ca "certificate signed by unknown authority" "nodePublishSecretRef"
	secret "$VAULT_CACERT"
	starts 60 ca
}
