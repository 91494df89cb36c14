#!/usr/bin/env bash
# PostgreSQL as its superuser sees it.

# users NAME: the users that Vault has made for the database role, sorted. Vault's names are v-<who>-<role>-<random>-<time>.
users() { psql -XAtc "select rolname from pg_roles where rolname like 'v-%-$1-%' order by 1"; }

# count: how many lines came in.
count() { grep -c . || true; }

# has_users NAME NUMBER
has_users() { same "database users of $1" "$(users "$1" | count)" "$2"; }
