#!/usr/bin/env bats
# Whoever uninstalls the provider takes nothing away from the pods that run.

load lib/all

@test "uninstalled while pods run: they keep their files and queries, a new pod waits, and starts after the reinstallation" {
	grant remove
	credentials remove | class remove
	pods remove remove-a remove-b
	starts 60 remove-a remove-b
	files=$(fingerprint remove-a) user=$(queries remove-a)

	helm uninstall "$RELEASE" -n "$SYSTEM" --wait >/dev/null
	eventually 60 "no provider is left" no_provider
	pod remove-new remove
	# No event is waited for: a driver that has talked to a provider waits silently for it, until kubelet gives up after two
	# minutes and says "context deadline exceeded".
	still_waits 15 remove-new
	same "who the pod is" "$(queries remove-a)" "$user"
	[[ $(fingerprint remove-a) == "$files" ]] || fail "the files have changed"
	has_users remove 2

	began=$(now)
	install_provider
	starts 120 remove-new
	say "$(since "$began") s from the reinstallation's begin to the new pod"
	polls_go_on 6
	queries remove-new >/dev/null
	kept remove-a remove-b
}

teardown() {
	install_provider
	end_case
}
