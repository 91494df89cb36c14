package spec

import (
	"strings"
	"testing"
)

func TestOperatorValidate(t *testing.T) {
	for name, row := range map[string]struct {
		mutate func(*Operator)
		want   string // the error's beginning; "" for none
	}{
		"valid":        {func(*Operator) {}, ""},
		"nothing":      {func(o *Operator) { *o = Operator{} }, ""},
		"address":      {func(o *Operator) { o.Vault.Address = "vault:8200" }, `the default Vault address "vault:8200" must begin with`},
		"password":     {func(o *Operator) { o.Vault.Address = "https://u:" + canary + "@v" }, "the default Vault address (not shown,"},
		"addresses":    {func(o *Operator) { o.Addresses = append(o.Addresses, "**") }, `the allowed address "**" must begin with`},
		"auth path":    {func(o *Operator) { o.Vault.AuthPath = "a/../b" }, `the default auth path "a/../b" is not the path`},
		"namespace":    {func(o *Operator) { o.Vault.Namespace = "a\nb" }, `the default namespace "a\nb" has a control character`},
		"cert only":    {func(o *Operator) { o.Vault.TLS.ClientCert.Path = "/c" }, "the default client certificate and its key go together"},
		"TLS relative": {func(o *Operator) { o.TLSDirectory = "tls" }, `the TLS directory "tls" must be an absolute path`},
		"TLS unclean":  {func(o *Operator) { o.TLSDirectory = "/tls/" }, `the TLS directory "/tls/" must be`},
		"TLS root":     {func(o *Operator) { o.TLSDirectory = "/" }, `the TLS directory "/" must be`},
		"two": {
			func(o *Operator) { o.Vault.Address, o.TLSDirectory = "x", "y" },
			`2 faults: (1) the default Vault address "x" must begin with https:// or http://; (2) the TLS directory "y"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := validCall().operator
			o.Addresses = []string{"*", "https://two.example"}
			row.mutate(&o)
			err := o.Validate()
			if (err == nil) != (row.want == "") || !strings.HasPrefix(errorText(err), row.want) {
				t.Errorf("got  %v\nwant %s", err, row.want)
			}
			if strings.Contains(errorText(err), canary) {
				t.Errorf("the fault shows a password: %v", err)
			}
		})
	}
}
