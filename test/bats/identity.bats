#!/usr/bin/env bats
# Vault decides by the pod's own service account, which the API server vouches for.

load lib/all

setup_file() {
	grant ident
	service_account other
}

@test "another service account is refused in Vault's words, and let in as soon as Vault's role is bound to it" {
	credentials ident | class ident
	pod other ident '.spec.serviceAccountName = "other"'
	told 30 other "PermissionDenied" "pod $NS/other" "auth/kubernetes/login" "service account name not authorized" \
		"bound to service account $NS/other" 'role "ident"'
	has_users ident 0
	bind ident other "$NS"
	starts 60 other
	bind ident app "$NS"
}

@test "a service account of the same name in another namespace is refused in Vault's words" {
	credentials ident | NS=$OTHER class ident
	NS=$OTHER pod stranger ident
	NS=$OTHER told 30 stranger "namespace not authorized" "bound to service account $OTHER/app"
}

@test "a pod cannot use the class of another namespace" {
	credentials ident | NS=$OTHER class theirs
	pod borrower theirs
	told 30 borrower "failed to get secretproviderclass $NS/theirs" "not found"
}

@test "classes of one name in two namespaces are two, each with its own role" {
	grant here app "$NS"
	grant there app "$OTHER"
	credentials here | class same '.spec.parameters.roleName = "here"'
	credentials there | NS=$OTHER class same '.spec.parameters.roleName = "there"'
	pod same same
	NS=$OTHER pod same same
	starts 60 same
	NS=$OTHER starts 60 same
	contains "the user here" "$(queries same)" "-here-"
	contains "the user there" "$(NS=$OTHER queries same)" "-there-"
}

@test "a pod cannot claim to be another one by its volume's attributes" {
	credentials ident | class ident
	pod claims ident '.spec.serviceAccountName = "other" | .spec.volumes[0].csi.volumeAttributes += {
		"csi.storage.k8s.io/serviceAccount.name": "app", "csi.storage.k8s.io/pod.name": "victim"}'
	told 30 claims "pod $NS/claims" "service account name not authorized" "bound to service account $NS/other"
}

@test "a token for another audience is refused: the API server knows what the token is for" {
	kubectl create token app -n "$NS" --audience=elsewhere | tr -d '\n' >"$BATS_TEST_TMPDIR/jwt"
	run vault PUT auth/kubernetes/login "$(jq -n --rawfile jwt "$BATS_TEST_TMPDIR/jwt" '{role: "ident", jwt: $jwt}')"
	[[ $status -ne 0 ]] || fail "Vault took a token for another audience"
	contains "Vault's words" "$output" "invalid audience"
}
