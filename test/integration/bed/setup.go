package bed

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// Role is a role of Vault's JWT method. The zero value of each field but ServiceAccounts leaves the choice to Vault.
type Role struct {
	ServiceAccounts []string // "namespace/name": who may log in
	Audience        string   // which the token must have; "": "vault"
	Policies        []string
	TTL, MaxTTL     time.Duration
	Period          time.Duration
	TokenType       string // "service" or "batch"
	NumUses         int
	NoDefaultPolicy bool
}

// DatabaseRole says how long the users of a dynamic database role live. The zero value leaves it to Vault.
type DatabaseRole struct{ TTL, MaxTTL time.Duration }

// Write writes to a path of Vault as root.
func (v *Vault) Write(ctx context.Context, path string, data map[string]any) error {
	if _, err := v.Client.Logical().WriteWithContext(ctx, path, data); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	return nil
}

// Policy writes a policy, in HCL.
func (v *Vault) Policy(ctx context.Context, name, rules string) error {
	return v.Write(ctx, "sys/policies/acl/"+name, map[string]any{"policy": rules})
}

// MayRead returns the rules of a policy that may read the paths, such as "kv/data/app" or "database/creds/*", and write
// to them, which is what "pki/issue/..." takes.
func MayRead(paths ...string) string {
	var rules strings.Builder
	for _, path := range paths {
		fmt.Fprintf(&rules, "path %q {\n  capabilities = [\"read\", \"update\"]\n}\n", path)
	}
	return rules.String()
}

// EnableJWT mounts the JWT method at auth/<mount>, for tokens of signer.
func (v *Vault) EnableJWT(ctx context.Context, mount string, signer *Signer) error {
	if err := v.Write(ctx, "sys/auth/"+mount, map[string]any{"type": "jwt"}); err != nil {
		return err
	}
	return v.Write(ctx, "auth/"+mount+"/config", map[string]any{
		"jwt_validation_pubkeys": []string{signer.PublicKey},
		"bound_issuer":           Issuer,
	})
}

// JWTRole writes a role of the method at auth/<mount>.
func (v *Vault) JWTRole(ctx context.Context, mount, name string, r Role) error {
	subjects := make([]string, 0, len(r.ServiceAccounts))
	for _, account := range r.ServiceAccounts {
		namespace, name, ok := strings.Cut(account, "/")
		if !ok {
			return fmt.Errorf("role %q: service account %q is not namespace/name", name, account)
		}
		subjects = append(subjects, subject(namespace, name))
	}
	audience := r.Audience
	if audience == "" {
		audience = "vault"
	}
	data := map[string]any{
		"role_type":               "jwt",
		"user_claim":              "sub",
		"bound_audiences":         []string{audience},
		"bound_claims":            map[string]any{"sub": subjects},
		"token_policies":          r.Policies,
		"token_num_uses":          r.NumUses,
		"token_no_default_policy": r.NoDefaultPolicy,
	}
	if r.TokenType != "" {
		data["token_type"] = r.TokenType
	}
	setSeconds(data, "token_ttl", r.TTL)
	setSeconds(data, "token_max_ttl", r.MaxTTL)
	setSeconds(data, "token_period", r.Period)
	return v.Write(ctx, "auth/"+mount+"/role/"+name, data)
}

func setSeconds(data map[string]any, key string, d time.Duration) {
	if d > 0 {
		data[key] = int(d.Seconds())
	}
}

// EnableKV mounts a KV engine of version 1 or 2, and returns when it can be written to.
func (v *Vault) EnableKV(ctx context.Context, mount string, version int) error {
	err := v.Write(ctx, "sys/mounts/"+mount, map[string]any{
		"type":    "kv",
		"options": map[string]string{"version": fmt.Sprint(version)},
	})
	if err != nil || version == 1 {
		return err
	}
	// Version 2 prepares its storage after the answer, and refuses everything until then.
	return v.process.Until(ctx, func(ctx context.Context) error {
		_, err := v.Client.Logical().ReadWithContext(ctx, mount+"/config")
		return err
	})
}

// PutKV1 writes a secret of KV version 1.
func (v *Vault) PutKV1(ctx context.Context, mount, name string, data map[string]any) error {
	return v.Write(ctx, mount+"/"+name, data)
}

// PutKV2 writes a new version of a secret of KV version 2.
func (v *Vault) PutKV2(ctx context.Context, mount, name string, data map[string]any) error {
	return v.Write(ctx, mount+"/data/"+name, map[string]any{"data": data})
}

// databaseName is the name of the connection to PostgreSQL below <mount>/config.
const databaseName = "postgres"

// EnableDatabase mounts the database engine with a connection to PostgreSQL as its superuser.
func (v *Vault) EnableDatabase(ctx context.Context, mount string, p *Postgres) error {
	if err := v.Write(ctx, "sys/mounts/"+mount, map[string]any{"type": "database"}); err != nil {
		return err
	}
	return v.Write(ctx, mount+"/config/"+databaseName, map[string]any{
		"plugin_name":          "postgresql-database-plugin",
		"connection_url":       "postgresql://{{username}}:{{password}}@" + p.Address + "/postgres?sslmode=disable",
		"username":             superuser,
		"password":             p.Password,
		"allowed_roles":        []string{"*"},
		"max_open_connections": 16,
	})
}

// AddDatabaseRole writes a dynamic role: every read of <mount>/creds/<name> makes a user of PostgreSQL.
func (v *Vault) AddDatabaseRole(ctx context.Context, mount, name string, r DatabaseRole) error {
	data := map[string]any{
		"db_name": databaseName,
		"creation_statements": []string{
			`CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
		},
	}
	setSeconds(data, "default_ttl", r.TTL)
	setSeconds(data, "max_ttl", r.MaxTTL)
	return v.Write(ctx, mount+"/roles/"+name, data)
}

// AddStaticRole makes a user of PostgreSQL whose password Vault changes at once, and then every rotation:
// <mount>/static-creds/<name> shows it.
func (v *Vault) AddStaticRole(ctx context.Context, mount, name string, p *Postgres, user string, rotation time.Duration) error {
	data := make(map[string]any)
	setSeconds(data, "rotation_period", rotation)
	return v.addStaticRole(ctx, mount, name, p, user, data)
}

// AddScheduledRole is AddStaticRole with a schedule, in the form of cron.
func (v *Vault) AddScheduledRole(ctx context.Context, mount, name string, p *Postgres, user, schedule string) error {
	return v.addStaticRole(ctx, mount, name, p, user, map[string]any{"rotation_schedule": schedule})
}

func (v *Vault) addStaticRole(ctx context.Context, mount, name string, p *Postgres, user string, data map[string]any) error {
	if err := p.Exec(ctx, `CREATE ROLE "`+user+`" WITH LOGIN`); err != nil {
		return err
	}
	data["db_name"], data["username"] = databaseName, user
	return v.Write(ctx, mount+"/static-roles/"+name, data)
}

// EnablePKI mounts a certificate authority with a role that issues any name: PUT <mount>/issue/<role>.
func (v *Vault) EnablePKI(ctx context.Context, mount, role string) error {
	// Its own certificate is to outlive all that it issues, whatever the server's longest life is.
	engine := map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "24h"}}
	if err := v.Write(ctx, "sys/mounts/"+mount, engine); err != nil {
		return err
	}
	root := map[string]any{"common_name": "bed", "key_type": "ec", "key_bits": 256, "ttl": "24h"}
	if err := v.Write(ctx, mount+"/root/generate/internal", root); err != nil {
		return err
	}
	return v.Write(ctx, mount+"/roles/"+role, map[string]any{
		"allow_any_name": true, "key_type": "ec", "key_bits": 256, "max_ttl": "12h",
	})
}

// Story configures the usual Vault in one go. The role "db-app" of auth/kubernetes is for the service account apps/db-app
// and may read everything below kv1/ (KV version 1), kv/ (version 2), database/ (dynamic role "db-app" with the given
// lives, static role "db-static" for the user "static-app") and issue certificates by pki/issue/web.
func (v *Vault) Story(ctx context.Context, p *Postgres, signer *Signer, users DatabaseRole) error {
	steps := []func() error{
		func() error { return v.EnableKV(ctx, "kv1", 1) },
		func() error { return v.EnableKV(ctx, "kv", 2) },
		func() error { return v.EnableDatabase(ctx, "database", p) },
		func() error { return v.AddDatabaseRole(ctx, "database", "db-app", users) },
		func() error { return v.AddStaticRole(ctx, "database", "db-static", p, "static-app", 24*time.Hour) },
		func() error { return v.EnablePKI(ctx, "pki", "web") },
		func() error {
			return v.Policy(ctx, "db-app", MayRead("kv1/*", "kv/data/*", "database/creds/*", "database/static-creds/*", "pki/issue/*"))
		},
		func() error { return v.EnableJWT(ctx, "kubernetes", signer) },
		func() error {
			return v.JWTRole(ctx, "kubernetes", "db-app", Role{ServiceAccounts: []string{"apps/db-app"}, Policies: []string{"db-app"}})
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Login logs a pod in to auth/<mount> and returns a client with its token: what the pod itself could do.
func (v *Vault) Login(ctx context.Context, mount, role, jwt string) (*api.Client, error) {
	client, err := v.Client.Clone()
	if err != nil {
		return nil, err
	}
	answer, err := client.Logical().WriteWithContext(ctx, "auth/"+mount+"/login", map[string]any{"role": role, "jwt": jwt})
	if err != nil {
		return nil, fmt.Errorf("log in to auth/%s as role %q: %w", mount, role, err)
	}
	client.SetToken(answer.Auth.ClientToken)
	return client, nil
}
