package spec

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCheckParameters(t *testing.T) {
	good := map[string]string{"roleName": "app", "objects": "- objectName: a\n  secretPath: kv/a\n"}
	with := func(key, value string) map[string]string {
		changed := map[string]string{key: value}
		for k, v := range good {
			if k != key {
				changed[k] = v
			}
		}
		return changed
	}
	operator := Operator{Vault: Vault{Address: "https://vault.example:8200", Audience: "vault"}}
	for name, row := range map[string]struct {
		parameters map[string]string
		useless    string // a part of the only one
		faults     []string
	}{
		"good":              {parameters: good},
		"another audience":  {parameters: with("audience", "https://other.example")},
		"nothing at all":    {faults: []string{"roleName is missing", "objects is missing"}},
		"a typo":            {parameters: with("roleNme", "x"), useless: `"roleNme" means nothing to Leasehold: did you mean roleName?`},
		"of another day":    {parameters: with("colour", "red"), useless: `"colour" means nothing to Leasehold: remove it`},
		"a foreign address": {parameters: with("vaultAddress", "https://evil.example"), faults: []string{"outside the operator's policy"}},
		"wrong objects":     {parameters: with("objects", "- objectName: a\n"), faults: []string{"secretPath is missing"}},
		"somebody's pod":    {parameters: with("csi.storage.k8s.io/pod.uid", "../..")},
	} {
		t.Run(name, func(t *testing.T) {
			useless, err := operator.CheckParameters(row.parameters)
			if got := strings.Join(useless, "\n"); row.useless == "" && got != "" || !strings.Contains(got, row.useless) {
				t.Errorf("got useless %q, want %q", useless, row.useless)
			}
			faults := Faults(nil)
			if err != nil && !errors.As(err, &faults) {
				t.Fatalf("got %v, want Faults", err)
			}
			if len(faults) != len(row.faults) {
				t.Fatalf("got faults %q, want %q", faults, row.faults)
			}
			for _, want := range row.faults {
				if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, want) }) {
					t.Errorf("got faults %q, want one with %q", faults, want)
				}
			}
		})
	}
}

// The caller's map is the class itself.
func TestCheckParametersLeavesThemAlone(t *testing.T) {
	parameters := map[string]string{"roleName": "app"}
	if _, err := (Operator{}).CheckParameters(parameters); err == nil {
		t.Error("got no fault of a class without objects")
	}
	if len(parameters) != 1 {
		t.Errorf("got %q, want them as they were", parameters)
	}
}
