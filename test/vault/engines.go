package main

import (
	"fmt"

	"github.com/hashicorp/go-hclog"
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/logical/database"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/command/server"
	"github.com/hashicorp/vault/plugins/database/postgresql"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
)

var engines = map[string]logical.Factory{
	"database": database.Factory,
	"kv":       kv.Factory,
	"pki":      pki.Factory,
	"transit":  transit.Factory,
}

var methods = map[string]logical.Factory{
	"jwt":        jwt.Factory,
	"kubernetes": kubernetes.Factory,
}

var audits = map[string]audit.Factory{
	"file": audit.NewFileBackend,
}

// storage opens the storage that the configuration names.
func storage(c *server.Storage, logger hclog.Logger) (physical.Backend, error) {
	if c == nil {
		return nil, fmt.Errorf(`no storage stanza: "file" and "inmem" are known here`)
	}
	switch c.Type {
	case "file":
		return file.NewFileBackend(c.Config, logger)
	case "inmem":
		return inmem.NewInmem(c.Config, logger)
	default:
		return nil, fmt.Errorf(`storage %q is not built in: "file" and "inmem" are`, c.Type)
	}
}

const postgresqlPlugin = "postgresql-database-plugin"

// plugins is the registry in which Vault looks up what is built in, by type and name.
type plugins struct{}

func (plugins) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factory := func(f logical.Factory, ok bool) (func() (any, error), bool) {
		return func() (any, error) { return f, nil }, ok
	}
	switch kind {
	case consts.PluginTypeCredential:
		f, ok := methods[name]
		return factory(f, ok)
	case consts.PluginTypeSecrets:
		f, ok := engines[name]
		return factory(f, ok)
	case consts.PluginTypeDatabase:
		return postgresql.New, name == postgresqlPlugin
	default:
		return nil, false
	}
}

func (p plugins) Contains(name string, kind consts.PluginType) bool {
	_, ok := p.Get(name, kind)
	return ok
}

func (plugins) Keys(kind consts.PluginType) []string {
	var names []string
	switch kind {
	case consts.PluginTypeCredential:
		for name := range methods {
			names = append(names, name)
		}
	case consts.PluginTypeSecrets:
		for name := range engines {
			names = append(names, name)
		}
	case consts.PluginTypeDatabase:
		names = append(names, postgresqlPlugin)
	}
	return names
}

func (plugins) DeprecationStatus(string, consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, true
}

func (plugins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
