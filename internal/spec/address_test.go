package spec

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, row := range []struct{ text, want, origin string }{
		{"https://vault.example:8200", "https://vault.example:8200", "https://vault.example:8200"},
		{"https://Vault.Example/", "https://vault.example", "https://vault.example:443"},
		{"HTTP://vault", "http://vault", "http://vault:80"},
		{"https://vault.example:443//", "https://vault.example:443", "https://vault.example:443"},
		{"https://gw.example/a/vault/", "https://gw.example/a/vault", "https://gw.example:443"},
		{"https://10.1.2.3:08200", "https://10.1.2.3:8200", "https://10.1.2.3:8200"},
		{"https://[2001:DB8:0::1]:8200", "https://[2001:db8::1]:8200", "https://[2001:db8::1]:8200"},
		{"https://vault.example:", "https://vault.example", "https://vault.example:443"},
	} {
		if a, err := parseAddress(row.text); err != nil || a.text != row.want || a.origin != row.origin {
			t.Errorf("parseAddress(%q) = %q, origin %q, %v; want %q, %q", row.text, a.text, a.origin, err, row.want, row.origin)
		}
	}
	for text, want := range map[string]string{
		"":                             "must begin with https://",
		"vault.example:8200":           "must begin with https://",
		"vault.example":                "must begin with https://",
		"ftp://vault.example":          "must begin with https://",
		"unix:///run/vault.sock":       "must begin with https://",
		"https:///path":                "must name a host",
		"https://:8200":                "must name a host",
		"https:vault.example":          "must name a host",
		"https://a..b":                 "must name a host",
		"https://böse.example":         "must name a host",
		"https://[fe80::1%25eth0]":     "must name a host",
		"https://u@vault.example":      "must carry no user name",
		"https://u:p@vault.example":    "must carry no user name",
		"https://vault.example?a=b":    "must have no query",
		"https://vault.example?":       "must have no query",
		"https://vault.example#a":      "must have no query",
		"https://vault.example:0":      "must have a port",
		"https://vault.example:99999":  "must have a port",
		"https://vault.example:http":   "is not a URL",
		"https://vault.example/a/../b": "must have a plain path",
		"https://vault.example/a//b":   "must have a plain path",
		"https://vault.example/a%2fb":  "must have a plain path",
		"https://vault.example/%2e%2e": "must have a plain path",
		"https://vault.example\n":      "is not a URL",
	} {
		if a, err := parseAddress(text); !strings.HasPrefix(errorText(err), want) {
			t.Errorf("parseAddress(%q) = %q, %v; want an error that begins with %q", text, a.text, err, want)
		}
	}
}

func TestAddressPolicy(t *testing.T) {
	const own = "https://vault.example:8200"
	for _, row := range []struct {
		own       string
		others    []string
		address   string
		class, ok bool // a class may name it; a redirect may lead to it
	}{
		{"", nil, "http://anything", true, true},
		{own, nil, own, true, true},
		{own, nil, own + "/", true, true},
		{own, nil, "https://VAULT.example:8200", true, true},
		{own, nil, own + "/prefix", true, true},
		{own, nil, "https://vault.example", false, false},
		{own, nil, "http://vault.example:8200", false, false},
		{own, nil, "https://vault.example.evil:8200", false, false},
		{own, nil, "https://evil.example:8200", false, false},
		{"", []string{own}, own, true, true},
		{"", []string{own}, "https://other", false, false},
		{own, []string{"https://two.example"}, "https://two.example:443", true, true},
		{own, []string{"https://two.example:443"}, "https://two.example", true, true},
		{own, []string{"https://two.example"}, "https://two.example:8200", false, false},
		{own, []string{"http://two.example"}, "http://two.example:80", true, true},
		{own, []string{"*"}, "http://169.254.169.254", true, true},
		{"*", nil, "http://169.254.169.254", false, false},
		{"https://gw.example/vault", nil, "https://gw.example/vault", true, true},
		{"https://gw.example/vault", nil, "https://gw.example/vault/eu", true, true},
		{"https://gw.example/vault", nil, "https://gw.example/vault2", false, true},
		{"https://gw.example/vault", nil, "https://gw.example", false, true},
		{own, nil, "nonsense", false, false},
	} {
		o := Operator{Vault: Vault{Address: row.own}, Addresses: row.others}
		if err := o.AddressAllowed(row.address); (err == nil) != row.ok {
			t.Errorf("operator %q %q: AddressAllowed(%q) = %v, want allowed %v", row.own, row.others, row.address, err, row.ok)
		}
		var f findings
		if o.parseVaultAddress(row.address, &f); (f.err() == nil) != row.class {
			t.Errorf("operator %q %q, class %q: %v, want allowed %v", row.own, row.others, row.address, f.err(), row.class)
		}
	}
}

func TestAddressErrorsHideAPassword(t *testing.T) {
	for _, text := range []string{"https://u:" + canary + "@vault.example", "https://u:" + canary + "%zz@v", canary + "@"} {
		err := Operator{}.AddressAllowed(text)
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("AddressAllowed(%q) = %v, want an error without the password", text, err)
		}
	}
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{
		"https://vault.example:8200", "http://[::1]:8200/a b/", "https://u:p@h", "https://h/%2e%2e/", "//h", "https://h:65536", "http://h/@",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAddress(text)
		if err != nil {
			return
		}
		again, err := parseAddress(a.text)
		if err != nil || again != a {
			t.Errorf("parseAddress(%q) = %+v, but parsed again it is %+v, %v", text, a, again, err)
		}
		if strings.ContainsAny(a.text, "?# ") || strings.HasSuffix(a.text, "/") || hasControl(a.text) {
			t.Errorf("parseAddress(%q) = %q, which is not canonical", text, a.text)
		}
		own := Operator{Vault: Vault{Address: text}}
		if err := own.AddressAllowed(text); err != nil {
			t.Errorf("the operator's own address %q is not allowed: %v", text, err)
		}
		if err := own.Validate(); err != nil {
			t.Errorf("%q can be parsed but is no valid default: %v", text, err)
		}
		other := Operator{Vault: Vault{Address: "https://only.example:8200"}}
		if allowed := other.AddressAllowed(text) == nil; allowed != (a.origin == "https://only.example:8200") {
			t.Errorf("a policy of another address allows %q: %v", text, allowed)
		}
	})
}
