#!/usr/bin/env bats
# What the author of a class reads in "kubectl describe pod" when something is wrong.

load lib/all

setup_file() { grant faults; }

@test "five faults of a class are told at once, each with its cure" {
	class five 'del(.spec.parameters.roleName) | .spec.parameters += {vaultSkipTLSVerify: "true"}' <<-YAML
		- {objectName: ../up, secretPath: kv1/a, secretKey: word}
		- {objectName: mode, secretPath: kv1/a, secretKey: word, filePermission: 999}
		- {objectName: typo, secretPath: kv1/a, secretkey: word}
	YAML
	pod five five
	told 30 five "InvalidArgument" "pod $NS/five" "5 faults:" "roleName is missing" \
		"vaultSkipTLSVerify is not allowed" 'objectName "../up"' 'filePermission "999"' 'did you mean secretKey?'
}

@test "a policy that does not allow the path is told with the cure, and the pod starts once it does" {
	vault PUT kv1/faults '{"word": "xyzzy"}'
	class policy '.spec.parameters.roleName = "faults"' <<-YAML
		- {objectName: word, secretPath: kv1/faults, secretKey: word}
		- {objectName: secret, secretPath: kv1/forbidden, secretKey: word}
	YAML
	pod policy policy
	told 30 policy "PermissionDenied" 'object "secret"' 'read "kv1/forbidden"' "permission denied" \
		'a policy of Vault role "faults" must allow "read" on that path'
	vault PUT kv1/forbidden '{"word": "plugh"}'
	vault PUT sys/policies/acl/faults '{"policy": "path \"kv1/*\" { capabilities = [\"read\"] }"}'
	starts 60 policy
	same "the file" "$(read_file policy secret)" plugh
}

@test "a KV 2 path without data/ is told with Vault's own warning" {
	vault PUT sys/policies/acl/faults '{"policy": "path \"kv/*\" { capabilities = [\"read\"] }"}'
	class missing '.spec.parameters.roleName = "faults"' <<-YAML
		- {objectName: word, secretPath: kv/faults, secretKey: word}
	YAML
	pod missing missing
	told 30 missing "NotFound" 'read "kv/faults"' "data/" "check secretPath"
}

@test "a CSIDriver without tokenRequests is told with the YAML that mends it, and the pod starts once it is mended" {
	grant faults
	credentials faults | class tokens '.spec.parameters.roleName = "faults"'
	get "csidrivers/$CSIDRIVER" | jq '{spec: {tokenRequests: .spec.tokenRequests,
		serviceAccountTokenInSecrets: .spec.serviceAccountTokenInSecrets}}' >"$BATS_TEST_TMPDIR/tokens.json"
	patch "csidrivers/$CSIDRIVER" '{"spec": {"tokenRequests": null, "serviceAccountTokenInSecrets": null}}'
	pod tokens tokens
	told 60 tokens "the driver sent no service account token" 'add "tokenRequests: [{audience: vault}]"' "CSIDriver object $CSIDRIVER"
	# The chart's notes look at the same object.
	advice='The driver asks for no service account token of audience "vault"'
	said=$(notes)
	contains "the chart's notes" "$said" "$advice"
	mend_csidriver
	starts 60 tokens
	said=$(notes)
	contains "the chart's notes, once it is mended" "$said" "rollout status daemonset/$RELEASE-provider"
	lacks "the chart's notes, once it is mended" "$said" "$advice"
}
mend_csidriver() {
	[[ ! -e $BATS_TEST_TMPDIR/tokens.json ]] || patch "csidrivers/$CSIDRIVER" "$(<"$BATS_TEST_TMPDIR/tokens.json")"
}

@test "a provider that is not installed under the class's name is the driver's to tell" {
	credentials faults | class unknown '.spec.provider = "vualt"'
	pod unknown unknown
	told 30 unknown 'provider "vualt"' "not found"
}

teardown() {
	mend_csidriver
	end_case
}
