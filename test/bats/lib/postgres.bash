#!/usr/bin/env bash
# PostgreSQL as its superuser sees it.

# users NAME: the users that Vault has made for the database role, sorted. Vault's names are v-<who>-<role>-<random>-<time>.
users() { psql -XAtc "select rolname from pg_roles where rolname like 'v-%-$1-%' order by 1"; }

# count: how many lines came in.
count() { grep -c . || true; }

# has_users NAME NUMBER
has_users() { same "database users of $1" "$(users "$1" | count)" "$2"; }

# watch_users: until it is ended, prints a line whenever a user of Vault's comes (+) or goes (-): "INFO: <seconds> <+ or ->
# <name>". The server itself looks 50 times a second. After an outage of the database it begins anew with those that are there.
watch_users() {
	# shellcheck disable=SC2046 # one process id a word
	trap 'kill $(jobs -p) 2>/dev/null; exit 0' TERM
	while :; do
		psql -XAtq 2>&1 <<-'SQL' | grep --line-buffered '^INFO:' &
			set client_connection_check_interval = '500ms';
			do $watch$
			declare
				known text[] := '{}';
				present text[];
				name text;
			begin
				loop
					select coalesce(array_agg(rolname::text), '{}') into present from pg_roles where rolname like 'v-%';
					for name in select unnest(present) except select unnest(known) loop
						raise info '% + %', extract(epoch from clock_timestamp()), name;
					end loop;
					for name in select unnest(known) except select unnest(present) loop
						raise info '% - %', extract(epoch from clock_timestamp()), name;
					end loop;
					known := present;
					perform pg_sleep(0.02);
				end loop;
			end $watch$;
		SQL
		wait
		sleep 0.2
	done
}

# came FILE NAME: how many different users of the database role watch_users has seen come.
came() { awk -v role="-$2-" '$3 == "+" && index($4, role) && !seen[$4]++ { n++ } END { print n + 0 }' "$1"; }

# went FILE USER: when watch_users has seen the user go, in seconds; nothing while it is there.
went() { awk -v name="$2" '$4 == name { at = $3 == "-" ? $2 : "" } END { if (at) print at }' "$1"; }
