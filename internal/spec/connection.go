package spec

import (
	"cmp"
	"encoding/pem"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"leasehold/internal/redact"
)

// parseVault reads the parameters of the connection and fills in the operator's defaults. Audience is what is wanted;
// which one there is a token for is for chooseToken to find out.
func (o Operator) parseVault(attributes, secrets map[string]string, ignored []string, f *findings) Vault {
	// A block text in YAML ends with a newline, and no parameter of the connection means anything by a space.
	line := func(name, otherwise string) string {
		value := strings.TrimSpace(attributes[name])
		if err := checkLine(value); err != nil {
			f.add("parameter %s %s %v", name, quote(value), err)
			return otherwise
		}
		if value == "" {
			return otherwise
		}
		return value
	}

	v := Vault{
		Address:   o.parseVaultAddress(strings.TrimSpace(attributes["vaultAddress"]), f),
		Namespace: strings.Trim(line("vaultNamespace", o.Vault.Namespace), "/"),
		AuthPath:  o.parseAuthPaths(line("vaultAuthMountPath", ""), line("vaultKubernetesMountPath", ""), f),
		Role:      line("roleName", o.Vault.Role),
		Audience:  line("audience", o.Vault.Audience),
	}
	if v.Role == "" {
		f.add("parameter roleName is missing: %s", cmp.Or(didYouMean(ignored, "roleName", "role"),
			"name the Vault role that this pod's service account logs in with"))
	}
	v.TLS = o.parseTLS(attributes, secrets, o.isOwnServer(v.Address), line, f)
	return v
}

func (o Operator) parseVaultAddress(text string, f *findings) string {
	if text == "" {
		if o.Vault.Address == "" {
			f.add("parameter vaultAddress is missing and the operator of the node set no default: name the address of your Vault")
			return ""
		}
		a, err := parseAddress(o.Vault.Address)
		if err != nil {
			f.add("the operator's default %v", addressFault(o.Vault.Address, err))
		}
		return a.text
	}
	a, err := parseAddress(text)
	if err == nil && !o.allows(a, true) {
		err = errNotAllowed
	}
	if err != nil {
		f.add("parameter vaultAddress %s %v", quoteAddress(text), err)
	}
	return a.text
}

func (o Operator) parseAuthPaths(authMount, kubernetesMount string, f *findings) string {
	name, text := "parameter vaultAuthMountPath", authMount
	switch {
	case authMount != "" && kubernetesMount != "":
		f.add("parameters vaultAuthMountPath and vaultKubernetesMountPath mean the same: keep only one of them")
		return ""
	case kubernetesMount != "":
		name, text = "parameter vaultKubernetesMountPath", kubernetesMount
	case authMount == "" && o.Vault.AuthPath != "":
		name, text = "the operator's default auth path", o.Vault.AuthPath
	case authMount == "":
		return defaultAuthPath
	}
	path, err := parseAuthPath(text)
	if err != nil {
		f.add("%s %s %v", name, quote(text), err)
	}
	return path
}

// parseAuthPath reads the mount path of an auth method, written with or without slashes around it and "auth/" before it.
func parseAuthPath(text string) (string, error) {
	path := strings.Trim(strings.TrimPrefix(strings.Trim(text, "/"), "auth/"), "/")
	if path == "" {
		return "", errors.New("names no auth method: write its mount path, such as kubernetes")
	}
	if err := checkLine(path); err != nil {
		return "", err
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "?#%") {
			return "", errors.New("is not the path of an auth method: write its mount path, such as kubernetes")
		}
	}
	return path, nil
}

// parseTLS reads the TLS parameters. What a class or its Secret says replaces the operator's material of the same
// purpose as a whole: whom a class trusts is what it says, not that and the operator's authorities besides, and then it
// wants Vault verified; a key goes with its own certificate. The operator's server name is that of his own server.
func (o Operator) parseTLS(
	attributes, secrets map[string]string, ownServer bool, line func(name, otherwise string) string, f *findings,
) TLS {
	t := o.Vault.TLS
	if !ownServer {
		t.ServerName = ""
	}
	t.ServerName = line("vaultTLSServerName", t.ServerName)

	file := func(name string) File { return o.tlsFile(name, line(name, ""), f) }
	caCert, caDirectory := file("vaultCACertPath"), file("vaultCADirectory")
	ca := pemSecret("ca.crt", "CERTIFICATE", secrets, f)
	if ca != "" {
		caCert = File{}
	}
	if ca != "" || caCert != (File{}) || caDirectory != (File{}) {
		t.CA, t.CACert, t.CADirectory = ca, caCert, caDirectory
		t.SkipVerify = false
	}

	const certName, keyName = "vaultTLSClientCertPath", "vaultTLSClientKeyPath"
	if (attributes[certName] == "") != (attributes[keyName] == "") {
		f.add("parameters %s and %s go together: set both or none", certName, keyName)
	}
	if certFile, keyFile := file(certName), file(keyName); certFile != (File{}) {
		t.ClientCert, t.ClientKey, t.Cert, t.Key = certFile, keyFile, "", redact.String{}
	}
	if (secrets["tls.crt"] == "") != (secrets["tls.key"] == "") {
		f.add("tls.crt and tls.key of the nodePublishSecretRef go together: put both into the Secret or none")
	}
	cert := pemSecret("tls.crt", "CERTIFICATE", secrets, f)
	if key := pemSecret("tls.key", "PRIVATE KEY", secrets, f); cert != "" && key != "" {
		t.ClientCert, t.ClientKey, t.Cert, t.Key = File{}, File{}, cert, redact.New(key)
	}

	if text := line("vaultSkipTLSVerify", ""); text != "" {
		skip, err := strconv.ParseBool(text)
		switch {
		case err != nil:
			f.add("parameter vaultSkipTLSVerify %s is not a truth value: write true or false", quote(text))
		case skip && !o.SkipVerify && !o.Vault.TLS.SkipVerify:
			f.add("parameter vaultSkipTLSVerify is not allowed by the operator of the node: remove it, and name the authority of " +
				"Vault's certificate with vaultCACertPath or with ca.crt in a nodePublishSecretRef")
		default:
			t.SkipVerify = skip
		}
	}
	return t
}

// tlsFile reads a parameter that names a file below the operator's TLS directory, absolute or relative to it.
func (o Operator) tlsFile(name, text string, f *findings) File {
	if text == "" {
		return File{}
	}
	if o.TLSDirectory == "" {
		f.add("parameter %s is not allowed by the operator of the node, who offers no TLS files: use a nodePublishSecretRef "+
			"with ca.crt, or with tls.crt and tls.key", name)
		return File{}
	}
	if slices.Contains(strings.Split(text, "/"), "..") {
		f.add("parameter %s %s has a \"..\" in it: name a file below %s without", name, quote(text), o.TLSDirectory)
		return File{}
	}
	root, path := filepath.Clean(o.TLSDirectory), filepath.Clean(text)
	if path == root || path == "." {
		f.add("parameter %s %s is the operator's TLS directory itself: name something below %s", name, quote(text), root)
		return File{}
	}
	if filepath.IsAbs(path) {
		below, ok := strings.CutPrefix(path, root+"/")
		if !ok {
			f.add("parameter %s %s is not below the operator's TLS directory: name a file below %s", name, quote(text), root)
			return File{}
		}
		path = below
	}
	return File{Root: root, Path: path}
}

// pemSecret reads one key of the nodePublishSecretRef: PEM text with at least one block of a kind, such as CERTIFICATE
// or RSA PRIVATE KEY. What is in the blocks is for the TLS handshake to judge.
func pemSecret(name, kind string, secrets map[string]string, f *findings) string {
	text := secrets[name]
	if text == "" {
		return ""
	}
	for rest := []byte(text); ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			f.add("%s of the nodePublishSecretRef has no PEM block of kind %s: put the PEM text into the Secret as it is, "+
				"encoded once", name, kind)
			return ""
		}
		if strings.HasSuffix(block.Type, kind) {
			return text
		}
	}
}

const maxLine = 1024

// checkLine refuses what cannot be a role, a namespace, a host or the like. Its errors follow the quoted text.
func checkLine(text string) error {
	if hasControl(text) {
		return errors.New("has a control character in it: write it in one line")
	}
	if len(text) > maxLine {
		return errors.New("is longer than " + strconv.Itoa(maxLine) + " bytes: shorten it")
	}
	return nil
}
