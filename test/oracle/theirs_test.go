package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul-template/template"

	"leasehold/internal/spec"
)

// theirs is consul-template.
type theirs struct {
	clients *dependency.ClientSet

	// known is what templates can ask for, fetched before. consul-template itself fetches what a template asks for after
	// it has run it without, and runs it again; what is shown in the end is the same, but a template that cannot do
	// without an answer has failed by then.
	known []fact
}

// fact is what consul-template's client has made of an answer.
type fact struct {
	question dependency.Dependency
	answer   any
}

// newTheirs lets consul-template's own client ask the vault for all that it knows.
func newTheirs(t *testing.T, v vault) *theirs {
	t.Helper()
	log.SetOutput(io.Discard) // consul-template logs each step
	time.Local = time.UTC     // it takes a time without a zone for one of the node
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "VAULT_") {
			t.Setenv(name, "") // the client would obey it
		}
	}
	dependency.SetVaultLeaseRenewalThreshold(0.9)
	c := &theirs{clients: dependency.NewClientSet()}
	err := c.clients.CreateVaultClient(&dependency.CreateVaultClientInput{
		Address: "http://127.0.0.1:8200", Token: "t", TransportCustomDialer: serve(t, v),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.clients.Stop)
	for asked, answer := range v {
		for _, question := range questions(t, asked) {
			got, _, err := question.Fetch(c.clients, nil)
			if failed := answer.status != 200 && asked.method != "LIST"; (err != nil) != failed {
				t.Fatalf("consul-template fetches %s: got error %v, want one: %t", question, err, failed)
			}
			if err == nil {
				c.known = append(c.known, fact{question, got})
			}
		}
	}
	return c
}

// questions returns all in which consul-template can ask for an answer.
func questions(t *testing.T, asked request) []dependency.Dependency {
	t.Helper()
	var list []dependency.Dependency
	add := func(question dependency.Dependency, err error) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, question)
	}
	switch asked.method {
	case "GET":
		add(dependency.NewVaultReadQuery(asked.path))
		if short := strings.Replace(asked.path, kv+"data/", kv, 1); short != asked.path {
			add(dependency.NewVaultReadQuery(short))
		}
	case "LIST":
		add(dependency.NewVaultListQuery(asked.path))
		if short := strings.Replace(asked.path, kv+"metadata/", kv, 1); short != asked.path {
			add(dependency.NewVaultListQuery(short))
		}
	case "PUT":
		if strings.HasPrefix(asked.path, kv) {
			return nil // consul-template is not asked before: it wraps what it writes there
		}
		args := make(map[string]any)
		if err := json.Unmarshal([]byte(asked.args), &args); err != nil {
			t.Fatalf("vault.txtar: PUT %s: %v", asked.path, err)
		}
		add(dependency.NewVaultWriteQuery(asked.path, args))
		if strings.Contains(asked.path, "/issue/") {
			add(dependency.NewVaultPKIQuery(asked.path, "", args))
		}
	default:
		t.Fatalf("vault.txtar: %s %s: unknown method", asked.method, asked.path)
	}
	return list
}

// render renders a template as consul-template does.
func (c *theirs) render(t spec.Template) (string, error) {
	// A template may change what it is given, and would change it for the next one too.
	brain := template.NewBrain()
	if strings.Contains(t.Text, "secret") || strings.Contains(t.Text, "pkiCert") {
		for _, f := range c.known {
			brain.Remember(f.question, fresh(f.answer))
		}
	}
	parsed, err := template.NewTemplate(&template.NewTemplateInput{
		Contents: t.Text, LeftDelim: t.Left, RightDelim: t.Right, ErrMissingKey: t.ErrorOnMissingKey,
	})
	if err != nil {
		return "", err
	}
	env := []string{
		"POD_NAME=" + pod.Name, "POD_NAMESPACE=" + pod.Namespace, "NAMESPACE=" + pod.Namespace, "POD_UID=" + pod.UID,
		"SERVICE_ACCOUNT=" + pod.ServiceAccount,
	}
	for {
		result, err := parsed.Execute(&template.ExecuteInput{Brain: brain, Env: env})
		if err != nil {
			return "", err
		}
		missing := result.Missing.List()
		if len(missing) == 0 {
			return string(result.Output), nil
		}
		for _, question := range missing {
			answer, _, err := fetch(question, c.clients)
			if err != nil {
				return "", err
			}
			brain.Remember(question, answer)
		}
	}
}

// fetch has consul-template ask Vault for something.
func fetch(question dependency.Dependency, clients *dependency.ClientSet) (any, *dependency.ResponseMetadata, error) {
	switch question.(type) {
	case *dependency.VaultReadQuery, *dependency.VaultWriteQuery, *dependency.VaultListQuery, *dependency.VaultPKIQuery:
		return question.Fetch(clients, nil)
	}
	return nil, nil, fmt.Errorf("%s: %w", question, errors.ErrUnsupported)
}

// fresh copies what a template can change.
func fresh(value any) any {
	switch value := value.(type) {
	case *dependency.Secret:
		secret := *value
		secret.Data, _ = fresh(secret.Data).(map[string]any)
		return &secret
	case map[string]any:
		m := maps.Clone(value)
		for key, inner := range m {
			m[key] = fresh(inner)
		}
		return m
	case []any:
		list := make([]any, len(value))
		for i, inner := range value {
			list[i] = fresh(inner)
		}
		return list
	}
	return value
}
