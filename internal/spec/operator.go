package spec

import (
	"path/filepath"
)

// defaultAuthPath is where Vault mounts the Kubernetes method unless told otherwise, and vault-csi-provider's
// default.
const defaultAuthPath = "kubernetes"

// Validate returns the faults of the operator's own settings, as [Faults], or nil. Parse expects valid settings.
func (o Operator) Validate() error {
	var f findings
	if o.Vault.Address != "" {
		if _, err := parseAddress(o.Vault.Address); err != nil {
			f.add("the default Vault %v", addressFault(o.Vault.Address, err))
		}
	}
	for _, text := range o.Addresses {
		if text == "*" {
			continue
		}
		if _, err := parseAddress(text); err != nil {
			f.add("the allowed %v", addressFault(text, err))
		}
	}
	if o.Vault.AuthPath != "" {
		if _, err := parseAuthPath(o.Vault.AuthPath); err != nil {
			f.add("the default auth path %s %v", quote(o.Vault.AuthPath), err)
		}
	}
	for _, setting := range []struct{ name, value string }{
		{"namespace", o.Vault.Namespace},
		{"role", o.Vault.Role},
		{"audience", o.Vault.Audience},
		{"TLS server name", o.Vault.TLS.ServerName},
	} {
		if err := checkLine(setting.value); err != nil {
			f.add("the default %s %s %v", setting.name, quote(setting.value), err)
		}
	}
	if (o.Vault.TLS.ClientCert == File{}) != (o.Vault.TLS.ClientKey == File{}) {
		f.add("the default client certificate and its key go together: name both files or none")
	}
	if d := o.TLSDirectory; d != "" && (!filepath.IsAbs(d) || filepath.Clean(d) != d || d == "/" || hasControl(d)) {
		f.add("the TLS directory %s must be an absolute path, clean, and not the root", quote(d))
	}
	return f.err()
}
