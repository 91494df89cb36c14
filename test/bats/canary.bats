#!/usr/bin/env bats
# No secret is anywhere but where it belongs. Vault's raw audit log knows all secrets of this run; here they are searched
# for in all that the product, the driver and Kubernetes have said. It is the last file, so that all cases have had their
# say.

load lib/all

setup() {
	grant canary
	vault PUT kv1/canary '{"word": "correct \"horse\" <battery> & staple"}'
	args='secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: canary.example}'
	{
		credentials canary
		echo '- {objectName: word, secretPath: kv1/canary, secretKey: word}'
		echo '- {objectName: tls.key, '"$args"', secretKey: private_key}'
	} | class canary '.spec.secretObjects = [{secretName: "canary-synced", type: "Opaque", data: [
		{objectName: "db/password", key: "password"}]}]'
	echo '- {objectName: none, secretPath: kv1/canary, secretKey: none}' | class refused '.spec.parameters.roleName = "canary"'
}

@test "no secret of the whole run is in an event, a description, a log, a metric or an object that must not have it" {
	[[ -n ${E2E_VAULT_AUDIT:-} ]] || skip "E2E_VAULT_AUDIT is empty: without Vault's raw audit log nobody knows the secrets"
	pod canary canary
	pod refused refused
	starts 60 canary
	told 30 refused 'no key "none"'
	eventually 30 "the Secret is there" there secrets/canary-synced
	polls_go_on 3

	# The last line of the log may be half written.
	secrets=$BATS_TEST_TMPDIR/secrets patterns=$BATS_TEST_TMPDIR/patterns texts=$BATS_TEST_TMPDIR/texts
	(
		umask 077
		jq -Rn 'inputs | fromjson?' "$E2E_VAULT_AUDIT" | jq -nr -f "$LIB/secrets.jq" >"$secrets"
		cut -f 2- "$secrets" >"$patterns"
	)
	collect "$texts"
	number=$(find "$texts" -type f | wc -l)
	say "$(wc -l <"$patterns") forms of secrets, searched in $number texts of $(du -sk "$texts" | cut -f 1) KiB"

	# There must have been something to search for, and somewhere to search.
	for known in "$(read_file canary db/password)" "$(read_file canary tls.key | sed -n 2p)" "$VAULT_TOKEN"; do
		grep -qxF -e "$known" "$patterns" || fail "a secret that this case knows is not among those of Vault's audit log"
	done
	local where what
	while read -r where what; do
		# shellcheck disable=SC2086 # the pattern names files
		grep -qF -e "$what" "$texts"/$where || fail "there is no $what in $where"
	done <<-SIGNS
		events FailedMount
		describe canary
		statuses canary
		metrics leasehold_mount_duration_seconds_count
		secrets helm.sh/release
		e2e/logs/*_provider_* "level":"DEBUG"
		e2e/logs/*_secrets-store_* node publish volume
	SIGNS

	search "$secrets" "$texts" || fail "secrets are where they must not be"
	# A search that finds nothing must be able to find.
	find "$texts" -type f | while read -r text; do
		printf 'before %s after\n' "$(shuf -n 1 "$patterns")" >>"$text"
	done
	run search "$secrets" "$texts"
	same "texts in which the search found what was planted" "$(cut -d : -f 1 <<<"$output" | sort -u | count)" "$number"
}

# collect DIRECTORY: all that has been said, a file for each kind.
collect() {
	mkdir -p "$1"
	api GET /api/v1/events >"$1/events"
	local space kind
	for space in "$NAMESPACE" "$OTHER" "$SYSTEM" kube-system; do
		kubectl describe pods,daemonsets,replicasets,configmaps,secretproviderclasses,secretproviderclasspodstatuses -n "$space"
	done >"$1/describe" 2>/dev/null
	for kind in secretproviderclasses secretproviderclasspodstatuses; do
		api GET "/apis/secrets-store.csi.x-k8s.io/v1/$kind"
	done >"$1/statuses"
	metrics >"$1/metrics"
	helm get all "$RELEASE" -n "$SYSTEM" >"$1/release"
	# Of all Secrets, with their values decoded, only those that the driver made for a class may have any. One of an earlier
	# case may still be there: the garbage collector takes its time.
	api GET /api/v1/secrets | jq '.items[] | select(.metadata.labels["secrets-store.csi.k8s.io/managed"] != "true") |
		{metadata, type, data: (.data // {} | map_values(@base64d))}' >"$1/secrets"
	cp -r "$E2E_OUTPUT" "$1/e2e"
}

# search SECRETS DIRECTORY: tells where secrets are, as file:line, and which request they are from, but never what they are;
# fails if there are any.
search() {
	local found
	found=$(grep -rnaFo -f <(cut -f 2- "$1") "$2" | awk '
		NR == FNR { at = index($0, "\t"); from[substr($0, at + 1)] = substr($0, 1, at - 1); next }
		{
			file = $0; sub(/:.*/, "", file)
			line = substr($0, length(file) + 2); sub(/:.*/, "", line)
			print file ":" line ": what was in the " from[substr($0, length(file) + length(line) + 3)]
		}' "$1" - | sort -u || true)
	[[ -z $found ]] || fail "$found"
}
