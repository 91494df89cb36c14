package spec

import (
	"slices"
	"testing"
)

// Who the pod is comes from kubelet alone: a tenant may write any attribute without the prefix of kubelet's.
func TestIdentityComesFromKubelet(t *testing.T) {
	want := mustParse(t, validCall()).Pod
	c := validCall()
	for _, name := range []string{
		"pod.namespace", "pod.name", "pod.uid", "serviceAccount.name", "serviceAccount.tokens", "namespace", "podNamespace",
		"pod", "podName", "uid", "podUID", "serviceAccount", "serviceAccountName", "tokens", "token", "csi.storage.k8s.io",
	} {
		c.attributes[name] = "mallory"
		c.secrets[name] = "mallory"
	}
	if got := mustParse(t, c).Pod; got != want {
		t.Errorf("got  %+v\nwant %+v: a tenant changed who the pod is", got, want)
	}
}

// Two requests that differ in anything are two sources; the same one is one, however many objects take from it.
func TestSources(t *testing.T) {
	read := Source{Method: "PUT", Path: "pki/issue/app", Args: `{"common_name":"a"}`}
	method, path, args := read, read, read
	method.Method, path.Path, args.Args = "POST", "pki/issue/other", `{"common_name":"b"}`
	var objects []Object
	for _, source := range []Source{read, method, read, path, args, args} {
		objects = append(objects, Object{Source: source})
	}
	if got, want := (Class{Objects: objects}).Sources(), []Source{read, method, path, args}; !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// An allowed address is one server. Another port, or a host that only begins alike, is another server.
func TestAllowedAddressIsNoPrefix(t *testing.T) {
	for own, other := range map[string]string{
		"https://vault.example:82":  "https://vault.example:8200",
		"https://10.0.0.1:820":      "https://10.0.0.1:8200",
		"http://vault.example":      "http://vault.example:8080",
		"https://vault.example:443": "https://vault.example:4430",
	} {
		if err := (Operator{Vault: Vault{Address: own}}).AddressAllowed(other); err == nil {
			t.Errorf("with %s, %s is allowed too", own, other)
		}
	}
}
