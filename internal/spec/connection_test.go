package spec

import (
	"testing"

	"leasehold/internal/redact"
)

// TestParseVault gives each row one connection: what the operator set, what the class says, and what comes of both.
func TestParseVault(t *testing.T) {
	type parameters = map[string]string
	operatorTLS := TLS{
		CACert: File{Path: "/operator/ca.pem"}, CADirectory: File{Path: "/operator/cas"},
		ClientCert: File{Path: "/operator/c.pem"}, ClientKey: File{Path: "/operator/k.pem"}, ServerName: "operator.example",
	}
	for name, row := range map[string]struct {
		class, secrets parameters
		operator       func(*Operator)
		want           func(*Vault)
	}{
		"operator's own": {want: func(*Vault) {}},
		"operator's role": {
			class: parameters{"roleName": ""}, operator: func(o *Operator) { o.Vault.Role = "common" },
			want: func(v *Vault) { v.Role = "common" },
		},
		"role trimmed": {class: parameters{"roleName": " r\n"}, want: func(v *Vault) { v.Role = "r" }},
		"namespace":    {class: parameters{"vaultNamespace": "team/a/"}, want: func(v *Vault) { v.Namespace = "team/a" }},
		"operator's namespace": {
			operator: func(o *Operator) { o.Vault.Namespace = "admin" }, want: func(v *Vault) { v.Namespace = "admin" },
		},
		"auth mount":            {class: parameters{"vaultAuthMountPath": "jwt"}, want: func(v *Vault) { v.AuthPath = "jwt" }},
		"auth mount, decorated": {class: parameters{"vaultAuthMountPath": "/auth/k8s/eu/"}, want: func(v *Vault) { v.AuthPath = "k8s/eu" }},
		"kubernetes mount":      {class: parameters{"vaultKubernetesMountPath": "k8s"}, want: func(v *Vault) { v.AuthPath = "k8s" }},
		"operator's auth mount": {
			operator: func(o *Operator) { o.Vault.AuthPath = "auth/jwt/" }, want: func(v *Vault) { v.AuthPath = "jwt" },
		},
		"auth mount over the operator's": {
			class: parameters{"vaultKubernetesMountPath": "k8s"}, operator: func(o *Operator) { o.Vault.AuthPath = "jwt" },
			want: func(v *Vault) { v.AuthPath = "k8s" },
		},
		"server name": {class: parameters{"vaultTLSServerName": "v.example"}, want: func(v *Vault) { v.TLS.ServerName = "v.example" }},
		"server name of another server": {
			class: parameters{"vaultAddress": "https://two.example"}, operator: func(o *Operator) { o.Addresses = []string{"*"} },
			want: func(v *Vault) { v.Address, v.TLS.ServerName = "https://two.example", "" },
		},
		"server name of the operator's own, named again": {
			class: parameters{"vaultAddress": "https://VAULT.example:8200/"},
			want:  func(*Vault) {},
		},
		"server name of an operator without an address": {
			class: parameters{"vaultAddress": "https://two.example"}, operator: func(o *Operator) { o.Vault.Address = "" },
			want: func(v *Vault) { v.Address = "https://two.example" },
		},
		"CA replaces whom to trust": {
			class: parameters{"vaultCACertPath": "/tls/team/ca.pem"},
			want:  func(v *Vault) { v.TLS.CACert, v.TLS.CADirectory = File{Root: "/tls", Path: "team/ca.pem"}, File{} },
		},
		"CA directory, relative": {
			class: parameters{"vaultCADirectory": "cas/"},
			want:  func(v *Vault) { v.TLS.CACert, v.TLS.CADirectory = File{}, File{Root: "/tls", Path: "cas"} },
		},
		"CA from the Secret": {
			class: parameters{"vaultCACertPath": "ca.pem"}, secrets: parameters{"ca.crt": certPEM},
			want: func(v *Vault) { v.TLS.CA, v.TLS.CACert, v.TLS.CADirectory = certPEM, File{}, File{} },
		},
		"client certificate": {
			class: parameters{"vaultTLSClientCertPath": "c.pem", "vaultTLSClientKeyPath": "k.pem"},
			want: func(v *Vault) {
				v.TLS.ClientCert, v.TLS.ClientKey = File{Root: "/tls", Path: "c.pem"}, File{Root: "/tls", Path: "k.pem"}
			},
		},
		"client certificate from the Secret": {
			class:   parameters{"vaultTLSClientCertPath": "c.pem", "vaultTLSClientKeyPath": "k.pem"},
			secrets: parameters{"tls.crt": certPEM, "tls.key": keyPEM},
			want: func(v *Vault) {
				v.TLS.ClientCert, v.TLS.ClientKey, v.TLS.Cert, v.TLS.Key = File{}, File{}, certPEM, redact.New(keyPEM)
			},
		},
		"verify, as the class says": {
			class: parameters{"vaultSkipTLSVerify": "false"}, operator: func(o *Operator) { o.Vault.TLS.SkipVerify = true },
			want: func(v *Vault) { v.TLS.SkipVerify = false },
		},
		"do not verify, as the operator": {
			operator: func(o *Operator) { o.Vault.TLS.SkipVerify = true }, want: func(v *Vault) { v.TLS.SkipVerify = true },
		},
		"do not verify, though the operator alone does": {
			class:    parameters{"vaultCACertPath": "ca.pem", "vaultSkipTLSVerify": "true"},
			operator: func(o *Operator) { o.Vault.TLS.SkipVerify = true },
			want: func(v *Vault) {
				v.TLS.CACert, v.TLS.CADirectory, v.TLS.SkipVerify = File{Root: "/tls", Path: "ca.pem"}, File{}, true
			},
		},
		"verify by the class's CA": {
			class: parameters{"vaultCACertPath": "ca.pem"}, operator: func(o *Operator) { o.Vault.TLS.SkipVerify = true },
			want: func(v *Vault) { v.TLS.CACert, v.TLS.CADirectory = File{Root: "/tls", Path: "ca.pem"}, File{} },
		},
		"verify by the class's CA directory": {
			class: parameters{"vaultCADirectory": "cas"}, operator: func(o *Operator) { o.Vault.TLS.SkipVerify = true },
			want: func(v *Vault) { v.TLS.CACert, v.TLS.CADirectory = File{}, File{Root: "/tls", Path: "cas"} },
		},
		"verify by the Secret's CA": {
			secrets: parameters{"ca.crt": certPEM}, operator: func(o *Operator) { o.Vault.TLS.SkipVerify = true },
			want: func(v *Vault) { v.TLS.CA, v.TLS.CACert, v.TLS.CADirectory = certPEM, File{}, File{} },
		},
		"do not verify, as the operator allows": {
			class: parameters{"vaultSkipTLSVerify": "True"}, operator: func(o *Operator) { o.SkipVerify = true },
			want: func(v *Vault) { v.TLS.SkipVerify = true },
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := validCall()
			c.operator.Vault.TLS = operatorTLS
			for key, value := range row.class {
				c.attributes[key] = value
			}
			if row.secrets != nil {
				c.secrets = row.secrets
			}
			if row.operator != nil {
				row.operator(&c.operator)
			}
			want := Vault{
				Address: "https://vault.example:8200", AuthPath: "kubernetes", Role: "db-app", Audience: "vault", TLS: operatorTLS,
			}
			row.want(&want)
			if got := mustParse(t, c).Class.Vault; got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}
