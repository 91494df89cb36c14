#!/usr/bin/env bats
# Files as applications read them, made by templates and formats of classes. What every function makes is the business of the
# unit tests and of the comparison with consul-template.

load lib/all

# connection NAME [SUFFIX]: an object whose template makes a connection string of the database role's user.
connection() {
	cat <<-YAML
		- objectName: url
		  template: >-
		    {{ with secret "database/creds/$1" }}postgres://{{ .Data.username }}:{{ .Data.password
		    }}@$PGHOST:${PGPORT:-5432}/${PGDATABASE:-postgres}{{ end }}${2:-}
	YAML
}

# connects POD QUERY: asks PostgreSQL from inside the pod, by the connection string in its file.
connects() { in_pod "$1" sh -c 'exec psql -XAt -c "$1" "$(cat /secrets/url)"' sh "$2"; }

@test "a connection string, a JSON file, settings of a shell and a certificate bundle are right for who reads them" {
	grant tmpl
	odd="it's \"odd\" \$HOME \`id\` # 6d1c"
	vault PUT kv1/tmpl "$(jq -n --arg odd "$odd" '{WORD: $odd, NUMBER: 42}')"
	vault PUT kv/data/tmpl '{"data": {"word": "open sesame 77b0"}}' >/dev/null
	{
		connection tmpl
		cat <<-'YAML'
			- objectName: config/app.json
			  filePermission: 0440
			  template: |
			    {{ with secret "database/creds/tmpl" -}}
			    {"user": {{ .Data.username | toJSON }}, "password": {{ .Data.password | toJSON }},
			    {{- end }} "word": {{ with secret "kv/tmpl" }}{{ .Data.data.word | toJSON }}{{ end }}}
			- {objectName: .env, secretPath: kv1/tmpl, format: env}
			- objectName: tls/bundle.pem
			  template: |-
			    {{ with pkiCert "pki/issue/web" "common_name=tmpl.example" "ttl=1h" }}{{ .Cert }}{{ .CA }}{{ .Key }}{{ end }}
		YAML
	} | class tmpl
	pod tmpl tmpl
	starts 60 tmpl

	user=$(connects tmpl "select current_user")
	contains "the user" "$user" v-kubernet-tmpl-
	same "database users" "$(users tmpl)" "$user"

	read_file tmpl config/app.json >"$BATS_TEST_TMPDIR/app.json"
	same "user in app.json" "$(jq -r .user "$BATS_TEST_TMPDIR/app.json")" "$user"
	same "word in app.json" "$(jq -r .word "$BATS_TEST_TMPDIR/app.json")" "open sesame 77b0"
	[[ $(read_file tmpl url) == *":$(jq -r .password "$BATS_TEST_TMPDIR/app.json")@"* ]] || fail "app.json has another password than the connection string"
	same "mode of app.json" "$(in_pod tmpl stat -L -c %a /secrets/config/app.json)" 440

	same "what a shell finds in .env" "$(in_pod tmpl sh -c '. /secrets/.env; echo "$WORD|$NUMBER"')" "$odd|42"

	bundle=$BATS_TEST_TMPDIR/bundle.pem
	read_file tmpl tls/bundle.pem >"$bundle"
	same "certificates and keys in the bundle" "$(grep -c 'BEGIN CERTIFICATE' "$bundle") $(grep -c 'BEGIN .*PRIVATE KEY' "$bundle")" "2 1"
	vault GET pki/cert/ca | jq -r .data.certificate >"$BATS_TEST_TMPDIR/ca.crt"
	openssl verify -CAfile "$BATS_TEST_TMPDIR/ca.crt" "$bundle"
	contains "subject" "$(openssl x509 -in "$bundle" -noout -subject)" tmpl.example
	same "the key's public half" "$(openssl pkey -in "$bundle" -pubout)" "$(openssl x509 -in "$bundle" -noout -pubkey)"

	files=$(fingerprint tmpl)
	polls_go_on 3
	[[ $(fingerprint tmpl) == "$files" ]] || fail "polls have changed files, times or modes"
	has_users tmpl 1
	kept tmpl
}

@test "a template that is edited under a running pod makes new bytes of the same database user" {
	quiet
	grant tmpledit
	connection tmpledit | class tmpledit
	pod tmpledit tmpledit
	starts 60 tmpledit
	before=$(read_file tmpledit url) user=$(connects tmpledit "select current_user") leases=$(leases tmpledit)
	reads=$(metric 'vault_request_duration_seconds_count{operation="read"}')
	connection tmpledit "?application_name=shop" | class tmpledit
	eventually 60 "the file is what the new template makes" shows tmpledit url "$before?application_name=shop"
	same "who the pod is" "$(connects tmpledit "select current_user, current_setting('application_name')")" "$user|shop"
	same "reads from Vault since then" "$(metric 'vault_request_duration_seconds_count{operation="read"}')" "$reads"
	has_users tmpledit 1
	[[ $(leases tmpledit) == "$leases" ]] || fail "the lease is another one"

	# A template that is none changes nothing for who runs already.
	connection tmpledit "{{ nosuchfunction }}" | class tmpledit
	pod tmplnew tmpledit
	told 60 tmplnew '"url"' nosuchfunction
	shows tmpledit url "$before?application_name=shop" || fail "the file has changed"
	same "who the pod is" "$(connects tmpledit "select current_user")" "$user"

	# And when it is mended, who waited starts.
	connection tmpledit "?application_name=mended" | class tmpledit
	starts 120 tmplnew
	eventually 60 "the file is what the mended template makes" shows tmpledit url "$before?application_name=mended"
	unlike "users of two pods" "$(connects tmplnew "select current_user")" "$user"
	has_users tmpledit 2
	kept tmpledit tmplnew
}
# shows POD FILE TEXT: a condition that tells nobody what the file has.
shows() { [[ $(read_file "$1" "$2") == "$3" ]]; }
