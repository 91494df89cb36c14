package vaulttest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mount is one secrets engine: what was written to it, and how it answers.
type mount struct {
	kind     string               // type and options as they were given
	options  Data                 //
	entries  map[string]Data      // KV v1: secrets; database, PKI: roles and configuration
	versions map[string][]version // KV v2: secrets
	answer   func(*Server, *mount, call, string) reply
}

// version is one version of a KV v2 secret.
type version struct {
	data             Data // nil once deleted
	created, deleted time.Time
}

// newMount returns an empty engine of the type that the arguments name, or nil.
func newMount(args Data) *mount {
	options, _ := args["options"].(Data)
	m := &mount{kind: str(args["type"]), options: options, entries: map[string]Data{}, versions: map[string][]version{}}
	switch m.kind {
	case "kv":
		m.answer = kv1
		if str(options["version"]) == "2" {
			m.answer = kv2
		}
	case "database":
		m.answer = database
	case "pki":
		m.answer = pki
	default:
		return nil
	}
	return m
}

// children lists the names directly below a path, which is "" or ends with a slash.
func children(names []string, below string) reply {
	found := map[string]bool{}
	for _, n := range names {
		if rest, ok := strings.CutPrefix(n, below); ok {
			if head, _, nested := strings.Cut(rest, "/"); nested {
				rest = head + "/"
			}
			found[rest] = true
		}
	}
	if len(found) == 0 {
		return missing()
	}
	return secret(Data{"keys": slices.Sorted(maps.Keys(found))}, nil)
}

// kv1 is version 1 of the key/value engine. It names a duration in which to read again, without a lease.
func kv1(_ *Server, m *mount, c call, name string) reply {
	switch c.operation {
	case "read":
		data, ok := m.entries[name]
		if !ok {
			return missing()
		}
		return secret(data, &lease{life: 768 * time.Hour})
	case "list":
		return children(slices.Collect(maps.Keys(m.entries)), name)
	case "delete":
		delete(m.entries, name)
		return done()
	}
	if len(c.args) == 0 {
		return fail(http.StatusBadRequest, "missing data fields")
	}
	m.entries[name] = c.args
	return done()
}

// kv2 is version 2 of the key/value engine.
func kv2(_ *Server, m *mount, c call, name string) reply {
	if name == "config" && c.operation == "read" {
		return secret(Data{"max_versions": 0, "cas_required": false, "delete_version_after": "0s"}, nil)
	}
	if below, ok := strings.CutPrefix(name, "metadata/"); ok && c.operation == "list" {
		return children(slices.Collect(maps.Keys(m.versions)), below)
	} else if ok && c.operation == "read" {
		if len(m.versions[below]) == 0 {
			return missing()
		}
		return secret(Data{"current_version": len(m.versions[below]), "custom_metadata": nil}, nil)
	}
	name, ok := strings.CutPrefix(name, "data/")
	if !ok || strings.HasSuffix(name, "/") {
		verb := map[string]string{"read": "get", "list": "list", "update": "put", "delete": "delete"}[c.operation]
		return full(http.StatusNotFound, nil, nil, []string{
			"Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. " +
				"If using the Vault CLI, use 'vault kv " + verb + "' for this operation.",
		}, nil)
	}
	all := m.versions[name]
	number := len(all)
	if asked := c.query["version"]; len(asked) > 0 {
		number, _ = strconv.Atoi(asked[0])
	}
	switch c.operation {
	case "read":
		if number < 1 || number > len(all) {
			return missing()
		}
		v := all[number-1]
		status, data := http.StatusOK, any(v.data)
		if v.data == nil {
			status, data = http.StatusNotFound, nil
		}
		return full(status, Data{"data": data, "metadata": v.metadata(number)}, nil, nil, nil)
	case "delete":
		if number > 0 {
			all[number-1].data, all[number-1].deleted = nil, time.Now()
		}
		return done()
	case "update":
		data, ok := c.args["data"].(Data)
		if !ok {
			return fail(http.StatusBadRequest, "no data provided")
		}
		v := version{data: data, created: time.Now()}
		m.versions[name] = append(all, v)
		return secret(v.metadata(len(all)+1), nil)
	}
	return unsupported()
}

// metadata is what KV v2 tells of a version.
func (v version) metadata(number int) Data {
	deleted := ""
	if !v.deleted.IsZero() {
		deleted = v.deleted.UTC().Format(time.RFC3339Nano)
	}
	return Data{
		"created_time": v.created.UTC().Format(time.RFC3339Nano), "custom_metadata": nil,
		"deletion_time": deleted, "destroyed": false, "version": number,
	}
}

// database is the database engine, without a database: each read of creds/ makes a user that lives as its lease does.
func database(s *Server, m *mount, c call, name string) reply {
	kind, role, _ := strings.Cut(name, "/")
	switch {
	case (kind == "roles" || kind == "static-roles" || kind == "config") && c.operation == "update":
		if m.entries["roles/"+role] != nil && kind == "static-roles" || m.entries["static-roles/"+role] != nil && kind == "roles" {
			return fail(http.StatusBadRequest, "Role and Static Role names must be unique")
		}
		m.entries[name] = c.args
		if kind == "static-roles" {
			m.entries[name]["rotated"] = time.Now()
			m.entries[name]["password"] = random(10)
		}
		return done()
	case (kind == "roles" || kind == "static-roles") && c.operation == "delete":
		delete(m.entries, name)
		return done()
	case kind == "creds" && c.operation == "read":
		now := func() (limits, error) {
			args, ok := m.entries["roles/"+role]
			if !ok {
				return limits{}, fmt.Errorf("error during renew: could not find role with name %q", role)
			}
			return limits{ttl: duration(args["default_ttl"], 0), max: duration(args["max_ttl"], 0)}, nil
		}
		l, err := now()
		if err != nil {
			return fail(http.StatusBadRequest, "unknown role: "+role)
		}
		ttl, warnings, err := l.grant(time.Now(), 0)
		if err != nil {
			return fail(http.StatusInternalServerError, err.Error())
		}
		lent := s.lend(c, ttl, now)
		lent.user = "v-" + role + "-" + random(8)
		return full(http.StatusOK, Data{"username": lent.user, "password": random(10)}, lent, warnings, nil)
	case kind == "static-creds" && c.operation == "read":
		args, ok := m.entries["static-roles/"+role]
		if !ok {
			return fail(http.StatusBadRequest, "unknown role: "+role)
		}
		period := duration(args["rotation_period"], 24*time.Hour)
		rotated, _ := args["rotated"].(time.Time) // set when the role was written
		answer := Data{
			"username": args["username"], "password": args["password"],
			"last_vault_rotation": rotated.UTC().Format(time.RFC3339Nano),
		}
		if schedule := args["rotation_schedule"]; schedule != nil { // of all schedules only that of each full hour, "0 * * * *"
			now := time.Now()
			answer["rotation_schedule"], answer["rotation_window"] = schedule, 0
			answer["ttl"] = int(now.Truncate(time.Hour).Add(time.Hour).Sub(now).Round(time.Second).Seconds())
		} else {
			answer["rotation_period"], answer["ttl"] = int(period.Seconds()), int(max(0, time.Until(rotated.Add(period))).Seconds())
		}
		return secret(answer, nil)
	case (kind == "creds" || kind == "static-creds") && c.operation != "list":
		return unsupported()
	}
	return failList(http.StatusNotFound, "unsupported path")
}

// pki is the PKI engine, with texts instead of certificates.
func pki(s *Server, m *mount, c call, name string) reply {
	if strings.HasPrefix(name, "roles/") || strings.HasPrefix(name, "root/") {
		if c.operation == "update" {
			m.entries[name] = c.args
		} else if m.entries[name] == nil {
			return missing()
		}
		return secret(m.entries[name], nil)
	}
	role, ok := strings.CutPrefix(name, "issue/")
	if !ok || c.operation == "list" {
		return failList(http.StatusNotFound, "unsupported path")
	}
	if c.operation != "update" {
		return unsupported()
	}
	args := m.entries["roles/"+role]
	if args == nil {
		return fail(http.StatusBadRequest, "unknown role: "+role)
	}
	commonName := str(c.args["common_name"])
	if commonName == "" {
		return fail(http.StatusBadRequest, `the common_name field is required, or must be provided in a CSR with `+
			`"use_csr_common_name" set to true, unless "require_cn" is set to false`)
	}
	allowed := func(domain string) bool { return strings.HasSuffix(commonName, "."+domain) }
	if !slices.ContainsFunc(strs(args["allowed_domains"]), allowed) {
		return fail(http.StatusBadRequest, fmt.Sprintf("common name %s not allowed by this role", commonName))
	}
	life := duration(c.args["ttl"], duration(args["max_ttl"], time.Hour))
	var l *lease
	if generate, _ := args["generate_lease"].(bool); generate {
		l = s.lend(c, life, nil)
	}
	text := func(kind string) string {
		return fmt.Sprintf("-----BEGIN %s-----\n%s\n-----END %s-----", kind, random(24), kind)
	}
	return secret(Data{
		"certificate": text("CERTIFICATE"), "issuing_ca": text("CERTIFICATE"), "ca_chain": []string{text("CERTIFICATE")},
		"private_key": text("RSA PRIVATE KEY"), "private_key_type": "rsa",
		"serial_number": random(20), "expiration": time.Now().Add(life).Unix(),
	}, l)
}
