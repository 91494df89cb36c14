package spec

import (
	"errors"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// address is a Vault address in canonical form.
type address struct {
	text   string // without a trailing slash, the host in lower case: what Vault.Address holds
	origin string // scheme, host and port, the default port written out: what policies compare
	path   string // "" or the path prefix, decoded
}

// parseAddress reads the address of a Vault. Its errors do not repeat the text, which may hold a password.
func parseAddress(text string) (address, error) {
	if strings.ContainsAny(text, "?#") {
		return address{}, errors.New("must have no query and no fragment: write it like https://vault.example:8200")
	}
	u, err := url.Parse(text)
	if err != nil {
		return address{}, errors.New("is not a URL: write it like https://vault.example:8200")
	}
	if u.User != nil {
		return address{}, errors.New("must carry no user name or password: remove what stands before the @")
	}
	defaultPort := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if defaultPort == "" {
		return address{}, errors.New("must begin with https:// or http://")
	}
	host, ok := canonicalHost(u.Hostname())
	if !ok {
		return address{}, errors.New("must name a host: write it like https://vault.example:8200")
	}
	prefix := strings.TrimRight(u.Path, "/")
	if u.RawPath != "" || hasControl(prefix) || (prefix != "" && path.Clean(prefix) != prefix) {
		return address{}, errors.New(`must have a plain path: no "..", no empty part, no escaped slash`)
	}

	a := address{origin: u.Scheme + "://" + host + ":" + defaultPort, path: prefix}
	a.text = u.Scheme + "://" + host
	if u.Port() != "" {
		port, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || port == 0 {
			return address{}, errors.New("must have a port from 1 to 65535")
		}
		a.text += ":" + strconv.FormatUint(port, 10)
		a.origin = a.text
	}
	a.text += (&url.URL{Path: prefix}).EscapedPath()
	return a, nil
}

// canonicalHost returns the host as a URL writes it: an IP address in its one short form, a name in lower case.
func canonicalHost(host string) (string, bool) {
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Is4() {
			return ip.String(), true
		}
		return "[" + ip.String() + "]", ip.Zone() == ""
	}
	host = strings.ToLower(host)
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", false
		}
	}
	return host, true
}

// quoteAddress quotes an address for a fault, unless it may hold a password.
func quoteAddress(text string) string {
	if strings.Contains(text, "@") {
		return "(not shown, for it may hold a password)"
	}
	return quote(text)
}

// within tells whether a lies at b or below it.
func (a address) within(b address) bool {
	return a.origin == b.origin && (a.path == b.path || strings.HasPrefix(a.path, b.path+"/"))
}

// AddressAllowed tells whether the operator's policy lets a class, or a redirect of Vault, go to address: to its
// scheme, host and port. (A class must also stay below the path of an allowed address; a redirect comes from an allowed
// Vault, which may choose the path.) The error says how to mend it.
func (o Operator) AddressAllowed(address string) error {
	a, err := parseAddress(address)
	if err != nil {
		return addressFault(address, err)
	}
	a.path = ""
	if !o.allows(a, false) {
		return addressFault(address, errNotAllowed)
	}
	return nil
}

// isOwnServer tells whether an address is at the scheme, host and port of the operator's own. An operator without an
// address has set his defaults for any.
func (o Operator) isOwnServer(text string) bool {
	if o.Vault.Address == "" {
		return true
	}
	own, ownErr := parseAddress(o.Vault.Address)
	a, err := parseAddress(text)
	return ownErr == nil && err == nil && a.origin == own.origin
}

var errNotAllowed = errors.New(
	"is outside the operator's policy: use the operator's own address, or ask the operator of the node to allow this one")

func addressFault(text string, err error) error {
	return errors.New("address " + quoteAddress(text) + " " + err.Error())
}

// allows compares an address with the policy, with its path or without.
func (o Operator) allows(a address, withPath bool) bool {
	if o.Vault.Address == "" && len(o.Addresses) == 0 {
		return true
	}
	for i, text := range append([]string{o.Vault.Address}, o.Addresses...) {
		if text == "*" && i > 0 {
			return true
		}
		allowed, err := parseAddress(text)
		if err != nil {
			continue // an empty default; Validate reports what is really wrong
		}
		if !withPath {
			allowed.path = ""
		}
		if a.within(allowed) {
			return true
		}
	}
	return false
}
