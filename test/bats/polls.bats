#!/usr/bin/env bats
# With rotation on the driver asks for every volume again and again. That must cost nothing and change nothing.

load lib/all

@test "twenty polls within a minute make no database user, no lease and no change in any file" {
	quiet # the polls that are counted are those of one volume
	grant polls
	args='secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: polls.example}'
	{
		credentials polls
		echo '- {objectName: tls.crt, '"$args"', secretKey: certificate}'
		echo '- {objectName: all.json, secretPath: database/creds/polls}'
	} | class polls
	pod polls polls
	starts 60 polls
	has_users polls 1
	files=$(fingerprint polls) users=$(users polls) leases=$(leases polls)
	remembered=$(metric polls_from_memory_total) # before the Mounts: one may come in between
	polls=$(mounts) began=$(now)
	eventually 60 "twenty polls" mounts_reach $((polls + 20))
	say "$(($(mounts) - polls)) polls in $(since "$began") s"
	between "polls answered from memory, by the metric" $(($(metric polls_from_memory_total) - remembered)) 20 $(($(mounts) - polls + 2))
	same "database users" "$(users polls)" "$users"
	same "number of leases" "$(leases polls | count)" 1
	[[ $(leases polls) == "$leases" ]] || fail "the lease is another one"
	[[ $(fingerprint polls) == "$files" ]] || fail "files, times or modes have changed"
	same "who the pod is" "$(queries polls)" "$users"
	kept polls
}

@test "polls while Vault is down change nothing, and are counted as successful" {
	needs_node
	grant pollsoff
	credentials pollsoff | class pollsoff
	pod pollsoff pollsoff
	starts 60 pollsoff
	files=$(fingerprint pollsoff)
	on_bed stop vault
	polls_go_on 4
	[[ $(fingerprint pollsoff) == "$files" ]] || fail "files, times or modes have changed"
	queries pollsoff >/dev/null
	on_bed start vault
	polls_go_on 2
	has_users pollsoff 1
	kept pollsoff
}

teardown() {
	vault_is_back
	end_case
}
