#!/usr/bin/env bash
# Claims and conditions. Each says what was wrong on standard error, and no secret ever: callers pass names and counts.

fail() {
	printf '%s\n' "$@" >&2
	return 1
}

# same WHAT GOT WANT
same() {
	[[ $2 == "$3" ]] || fail "$1: got: $2" "$1: want: $3"
}

# unlike WHAT ONE OTHER
unlike() {
	[[ $2 != "$3" ]] || fail "$1: got the same twice: $2"
}

# between WHAT NUMBER LOWEST HIGHEST
between() {
	(($2 >= $3 && $2 <= $4)) || fail "$1: got $2, want $3 to $4"
}

# contains WHAT TEXT PART...
contains() {
	local what=$1 text=$2 part
	shift 2
	for part; do
		[[ $text == *"$part"* ]] || fail "$what: does not have: $part" "$what: $text" || return
	done
}

# lacks WHAT TEXT PART...
lacks() {
	local what=$1 text=$2 part
	shift 2
	for part; do
		[[ $text != *"$part"* ]] || fail "$what: has: $part" "$what: $text" || return
	done
}

# eventually SECONDS WHAT COMMAND...: asks until the command succeeds; its last words are shown when the time is over.
# The command runs without "set -e", as every condition does: it must be one that fails as a whole.
eventually() {
	local deadline=$((${EPOCHREALTIME%.*} + $1)) seconds=$1 what=$2 said
	shift 2
	until said=$("$@" 2>&1); do
		((${EPOCHREALTIME%.*} < deadline)) || fail "after $seconds s still not: $what" "$said" || return
		sleep 0.2
	done
}

# now prints the time in seconds with fractions; since BEGIN how many have passed.
now() { echo "$EPOCHREALTIME"; }
since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f\n", b - a }'; }

# say TEXT: into the run's output, whether the case passes or not.
say() { printf '# %s\n' "$*" >&3; }

# needs_node: the case controls Vault or the kubelet, which only our own test bed lets it do. Elsewhere it is skipped, and
# the runner says so at the end.
needs_node() {
	[[ -n ${E2E_NODE:-} ]] || skip "E2E_NODE is empty: this cluster does not let us stop its parts"
}
