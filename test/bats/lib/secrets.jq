# Every secret text in Vault's raw audit log, one a line, after the request that it is from and a tab: the tokens of all
# requests and logins, the credentials that were sent, and every text that a secrets engine was given or answered, but for
# what is public by its key. A text of several lines (a private key) counts line by line, and none that is shorter than 8
# characters, for such are found everywhere. A JWT's signature counts alone, too. With each go the forms in which it could
# hide: as JSON escapes it, and in base64 wherever it may begin.
def public: ["username", "serial_number", "private_key_type", "expiration", "ttl", "not_before", "not_after",
	"issuing_ca", "ca_chain", "common_name", "alt_names", "ip_sans", "format", "last_vault_rotation", "created_time", "updated_time",
	"deletion_time", "custom_metadata", "certificate", "issuer_id", "issuer_name", "key_id", "key_name"];
def leaves:
	if type == "object" then to_entries[] | select(.key as $key | public | index($key) | not) | .value | leaves
	elif type == "array" then .[] | leaves
	elif type == "string" then . else empty end;
def secrets:
	.auth.client_token?, .request.client_token?, .response.auth.client_token?, .response.wrap_info.token?,
	(.request.data? | objects | .jwt, .token, .password, .secret_id, .key, .private_key, .token_reviewer_jwt),
	(select(.request.mount_class == "secret") |
		if .request.mount_type == "kv" then (.request.data, .response.data) | leaves
		elif .request.mount_type | IN("system", "identity", "cubbyhole") then empty
		# What a role is made of is no secret, and has words such as "password" and "hostname" in it.
		elif .request.mount_type == "database" and (.request.path | contains("creds/") | not) then empty
		elif .request.mount_type == "pki" and (.request.path | contains("roles/")) then empty
		else .response.data | leaves end);
# The characters of the base64 that depend on the text alone when it begins n bytes after a multiple of three.
def base64($n): ("." * $n // "") + . | utf8bytelength as $bytes |
	@base64 | .[((8 * $n + 5) / 6 | floor):(8 * $bytes / 6 | floor)];
[inputs | "\(.type) to \(.request.operation) \(.request.path)" as $origin | secrets | strings | {$origin, text: .}]
| map(., (select(.text | startswith("eyJ")) | .text |= (. / "." | .[-1])))
| map({origin, text: (.text | split("\n")[])}) | map(select((.text | length) >= 8 and (.text | startswith("-----") | not)))
| unique_by(.text)[] | .origin + "\t" + (.text | ., (tojson[1:-1]), base64(0), base64(1), base64(2))
