package render

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"leasehold/internal/spec"
)

// vaultSecret is an answer as templates see it: with the fields that consul-template gives it and in their order, for a
// template may print all of it.
type vaultSecret struct {
	RequestID      string // always "", for it is another one each time
	LeaseID        string
	LeaseDuration  int // seconds
	Renewable      bool
	Data           map[string]any // nil if there is nothing in it
	Warnings       []string       // likewise
	Auth, WrapInfo *struct{}      // always nil
}

// secretOf returns an answer for one template, which may change it. One that is too large for a template is not even copied.
func secretOf(a answer) (*vaultSecret, error) {
	size := scale{most: mostValue}
	size.add(a.data)
	if err := size.err(); err != nil {
		return nil, err
	}
	s := &vaultSecret{
		LeaseID:       a.grant.LeaseID,
		LeaseDuration: int(a.grant.LeaseDuration / time.Second),
		Renewable:     a.grant.Renewable,
	}
	if len(a.data) > 0 {
		s.Data = a.values()
	}
	if len(a.grant.Warnings) > 0 {
		s.Warnings = slices.Clone(a.grant.Warnings)
	}
	return s, nil
}

// Format prints what is behind the pointer, also where package fmt would print an address.
func (s *vaultSecret) Format(f fmt.State, verb rune) {
	type plain vaultSecret
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), (*plain)(s))
}

// Bounds of what a template may ask with. A source is kept for as long as its volume.
const (
	maxSourcePath = 4096     // bytes
	maxSourceArgs = 64 << 10 // bytes
)

// sourcePath reads a path as a template writes it. Where consul-template takes it for a URL, its special characters may be
// escaped.
func sourcePath(function, text string, isURL bool) (string, error) {
	if len(text) > maxSourcePath {
		return "", fault(function + ": the path is too long")
	}
	path, query, hasQuery := strings.Cut(strings.TrimSpace(text), "?")
	if isURL {
		plain, err := url.PathUnescape(path)
		if err != nil || strings.Contains(plain, "?") {
			return "", fault(function + ": the path cannot be read: write a percent sign as %25, and avoid question marks in names")
		}
		path = plain
	}
	if hasQuery {
		path += "?" + query
	}
	path, err := spec.SourcePath(path)
	if err != nil {
		return "", fault(function + ": the path " + err.Error())
	}
	return path, nil
}

// sourceArgs makes the body of a request of pairs key=value.
func sourceArgs(function string, pairs []string) (string, error) {
	args := make(map[string]string)
	for _, pair := range pairs {
		if pair == "" {
			continue
		}
		key, value, found := strings.Cut(pair, "=")
		if !found {
			return "", fault(function + `: what follows the path must be pairs like "common_name=app.example"`)
		}
		args[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	text, err := json.Marshal(args)
	switch {
	case err != nil: // texts can be written as JSON
		return "", fault(function + ": the arguments cannot be written as JSON")
	case len(text) > maxSourceArgs:
		return "", fault(function + ": the arguments are too long")
	}
	return string(text), nil
}

// secret reads a path and returns Vault's answer, or with pairs key=value writes them to it; be they empty, they make it a
// write. Without a path it is nothing.
func (m *machine) secret(arguments ...string) (any, error) {
	if len(arguments) == 0 {
		return nil, nil
	}
	isWrite := len(arguments) > 1
	path, err := sourcePath("secret", arguments[0], !isWrite)
	if err != nil {
		return nil, err
	}
	source := spec.Source{Method: "GET", Path: path, Lenient: true}
	if isWrite {
		source.Method, source.Lenient = "PUT", false // as an object would ask: they share the answer
		if source.Args, err = sourceArgs("secret", arguments[1:]); err != nil {
			return nil, err
		}
	}
	a, err := m.ask(source)
	if err != nil {
		return nil, err
	}
	return secretOf(a)
}

// secrets lists the names below a path, sorted; nil if there is nothing.
func (m *machine) secrets(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	path, err := sourcePath("secrets", path, false)
	if err != nil {
		return nil, err
	}
	a, err := m.ask(spec.Source{Method: "LIST", Path: path, Lenient: true})
	if err != nil {
		return nil, err
	}
	keys, found := a.data["keys"]
	if !found {
		return nil, nil
	}
	const unexpected = fault("secrets: vault's answer is not a list of names")
	list, isList := keys.([]any)
	if !isList {
		return nil, unexpected
	}
	var names []string
	for _, key := range list {
		name, isText := key.(string)
		if !isText {
			return nil, unexpected
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// certificate is what pkiCert returns: PEM texts, each with a newline at its end.
type certificate struct {
	Cert, Key, CA string
	CAChain       []string // the certificates of authorities, CA the first of them
}

// Data returns the certificate itself, so that a template may write .Data.Cert as of a secret.
func (c certificate) Data() certificate { return c }

// pkiCert asks for a certificate by pairs key=value, and sorts what Vault answers: the private key, the certificates of
// authorities, and the one that was asked for. Without a path it is nothing.
func (m *machine) pkiCert(arguments ...string) (any, error) {
	if len(arguments) == 0 {
		return nil, nil
	}
	path, err := sourcePath("pkiCert", arguments[0], true)
	if err != nil {
		return nil, err
	}
	args, err := sourceArgs("pkiCert", arguments[1:])
	if err != nil {
		return nil, err
	}
	a, err := m.ask(spec.Source{Method: "PUT", Path: path, Args: args})
	if err != nil {
		return nil, err
	}
	return certificateOf(a.data)
}

// certificateOf sorts the PEM blocks in an answer. The issuer comes first, so that it is the first authority.
func certificateOf(data map[string]any) (certificate, error) {
	var c certificate
	names := slices.Sorted(maps.Keys(data))
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	for _, name := range names {
		switch value := data[name].(type) {
		case string:
			if err := c.add(value); err != nil {
				return certificate{}, err
			}
		case []any:
			if name != "ca_chain" {
				continue
			}
			for _, item := range value {
				if text, isText := item.(string); isText {
					if err := c.add(text); err != nil {
						return certificate{}, err
					}
				}
			}
		}
	}
	if c.Cert == "" {
		return certificate{}, fault("pkiCert: vault's answer has no certificate in PEM: ask a path like pki/issue/<role>, with the " +
			"role's default format")
	}
	return c, nil
}

func rank(field string) int {
	switch field {
	case "issuing_ca":
		return 0
	case "ca_chain":
		return 1
	}
	return 2
}

// add sorts in the PEM blocks of a text.
func (c *certificate) add(text string) error {
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil
		}
		written := string(pem.EncodeToMemory(block))
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			c.Key = written
			continue
		}
		parsed, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return fault("pkiCert: a certificate in vault's answer cannot be read")
		case !parsed.IsCA:
			c.Cert = written
		case !slices.Contains(c.CAChain, written):
			c.CAChain = append(c.CAChain, written)
			c.CA = c.CAChain[0]
		}
	}
}
