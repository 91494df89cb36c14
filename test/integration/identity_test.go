package integration

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"leasehold/test/integration/bed"
)

// keyPairName fails the test unless certificate and key belong together, and returns the certificate's common name.
func keyPairName(t testing.TB, certificate, key string) string {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	must(t, "key pair", err)
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	must(t, "certificate", err)
	return leaf.Subject.CommonName
}

func TestTwoVolumesOfOnePod(t *testing.T) {
	t.Parallel()
	p, name, pod := startProvider(t, bed.ProviderOptions{}), role(t, bed.Role{}), newPod()
	objects := credentials(name) + object("word", putKV1(t, map[string]any{"word": "xyzzy"}), "word")
	one := newVolumeOf(t, p, pod, "one", class(name, objects))
	two := newVolumeOf(t, p, pod, "two", class(name, objects))
	versionsOne, versionsTwo := mustMount(t, one), mustMount(t, two)
	logIn(t, one)
	logIn(t, two)
	if u := files(t, one)["username"]; u == files(t, two)["username"] {
		t.Errorf("users of two volumes: got %q for both, want two", u)
	}
	if versionsOne["word"] == versionsTwo["word"] {
		t.Error("versions of the same bytes in two volumes: got the same, want them to say nothing of the bytes")
	}
	holds(t, name, 2, 2)
}

func TestServiceAccountThatIsNotBound(t *testing.T) {
	t.Parallel()
	p, name := startProvider(t, bed.ProviderOptions{}), role(t, bed.Role{ServiceAccounts: []string{"apps/db-app"}})
	mustMount(t, newVolume(t, p, class(name, credentials(name))))
	pod := newPod()
	pod.ServiceAccount = "other"
	_, err := mount(t, newVolumeOf(t, p, pod, "creds", class(name, credentials(name))))
	wantStatus(t, err, codes.PermissionDenied,
		"pod apps/"+pod.Name, `"auth/kubernetes/login"`, "400",
		`claim "sub" does not match any associated bound claim values`, // Vault's own words
		"bound to service account apps/other", `role "`+name+`"`)
	holds(t, name, 1, 1)
}

func TestUnknownRole(t *testing.T) {
	t.Parallel()
	v := newVolume(t, startProvider(t, bed.ProviderOptions{}), class("no-such-role", credentials("no-such-role")))
	_, err := mount(t, v)
	wantStatus(t, err, codes.PermissionDenied, `role "no-such-role" could not be found`)
}

func TestPolicySaysNo(t *testing.T) {
	t.Parallel()
	name := role(t, bed.Role{Policies: []string{"default"}})
	_, err := mount(t, newVolume(t, startProvider(t, bed.ProviderOptions{}), class(name, credentials(name))))
	wantStatus(t, err, codes.PermissionDenied, `objects "username", "password"`, `read "database/creds/`+name+`"`, "403",
		`a policy of Vault role "`+name+`" must allow "read"`)
	left(t, name)
}

// TestFiveFaults has everything wrong at once: one error, so that the author mends all of it in one go.
func TestFiveFaults(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	v := newVolume(t, startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address}), map[string]string{
		"vaultSkipTLSVerify": "true",
		"vaultCACertPath":    "/etc/shadow",
		"objects": `
- {objectName: ../up, secretPath: kv1/a, secretKey: word}
- {objectName: mode, secretPath: kv1/a, secretKey: word, filePermission: 999}
- {objectName: typo, secretpath: kv1/a, secretKey: word}
`,
	})
	_, err := mount(t, v)
	wantStatus(t, err, codes.InvalidArgument,
		"pod apps/"+v.Pod.Name,
		"roleName is missing",
		"vaultSkipTLSVerify is not allowed",
		"vaultCACertPath is not allowed",
		`objects[0] "../up", line 2: objectName "../up"`,
		`objects[1] "mode", line 3: filePermission "999"`,
		`objects[2] "typo", line 4: unknown key "secretpath": did you mean secretPath?`)
	if got := trouble.Total(); got != 0 {
		t.Errorf("requests: got %v, want none", trouble.Requests())
	}
	wantFiles(t, files(t, v), nil)
}

func TestMissingTokens(t *testing.T) {
	t.Parallel()
	name := role(t, bed.Role{})
	v := newVolume(t, startProvider(t, bed.ProviderOptions{}), class(name, credentials(name)))
	v.Audiences = nil
	_, err := mount(t, v)
	wantStatus(t, err, codes.InvalidArgument, "tokenRequests: [{audience: vault}]", "CSIDriver object secrets-store.csi.k8s.io")

	v.Audiences = []string{"vault"} // the administrator has mended it
	mustMount(t, v)
}

func TestTokensInSecrets(t *testing.T) {
	t.Parallel()
	name := role(t, bed.Role{})
	v := newVolume(t, startProvider(t, bed.ProviderOptions{}), class(name, credentials(name)))
	v.TokensInSecrets = true
	mustMount(t, v)
	logIn(t, v)
}

func TestAudiences(t *testing.T) {
	t.Parallel()
	p := startProvider(t, bed.ProviderOptions{})
	vault, other := role(t, bed.Role{}), role(t, bed.Role{Audience: "https://other.example"})
	for name, row := range map[string]struct {
		role      string
		audiences []string
		parameter string
		code      codes.Code
		says      []string
	}{
		"the default among several": {vault, []string{"api", "vault"}, "", codes.OK, nil},
		"the only one":              {other, []string{"https://other.example"}, "", codes.OK, nil},
		"the one asked for":         {other, []string{"vault", "https://other.example"}, "https://other.example", codes.OK, nil},
		"one that the role does not bind": {
			other,
			[]string{"vault", "https://other.example"},
			"", codes.PermissionDenied,
			[]string{"audience claim does not match any expected audience", `to audience "vault"`},
		},
		"one that is not there": {
			vault, []string{"api", "vault"}, "nobody", codes.InvalidArgument, []string{`"nobody"`, `"api", "vault"`, "tokenRequests"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			parameters := class(row.role, credentials(row.role))
			if row.parameter != "" {
				parameters["audience"] = row.parameter
			}
			v := newVolume(t, p, parameters)
			v.Audiences = row.audiences
			_, err := mount(t, v)
			if row.code == codes.OK {
				must(t, "mount", err)
				return
			}
			wantStatus(t, err, row.code, row.says...)
		})
	}
}

// TestIdentityIsKubelets has a pod claim, by volumeAttributes, to be another one. The driver copies them over the class's
// parameters, and kubelet's own over both.
func TestIdentityIsKubelets(t *testing.T) {
	t.Parallel()
	p, name := startProvider(t, bed.ProviderOptions{}), role(t, bed.Role{})
	victim := newPod()
	theirs := newVolumeOf(t, p, victim, "creds", class(name, credentials(name)))
	mustMount(t, theirs)
	stolen, err := shared.signer.Token(victim, "vault", time.Hour)
	must(t, "token", err)
	tokens, err := json.Marshal(map[string]any{"vault": map[string]any{"token": stolen}})
	must(t, "tokens", err)

	pod := newPod()
	pod.ServiceAccount = "intruder"
	v := newVolumeOf(t, p, pod, "creds", class(name, credentials(name)))
	v.Attributes = map[string]string{
		"csi.storage.k8s.io/pod.name":              victim.Name,
		"csi.storage.k8s.io/pod.namespace":         victim.Namespace,
		"csi.storage.k8s.io/pod.uid":               victim.UID,
		"csi.storage.k8s.io/serviceAccount.name":   victim.ServiceAccount,
		"csi.storage.k8s.io/serviceAccount.tokens": string(tokens),
		"podName": victim.Name, "podUID": victim.UID, "serviceAccountName": victim.ServiceAccount, "token": stolen,
	}
	for _, inSecrets := range []bool{false, true} { // then the attribute is the pod's alone, and must not count
		v.TokensInSecrets = inSecrets
		_, err := mount(t, v)
		wantStatus(t, err, codes.PermissionDenied, "pod apps/"+pod.Name, "bound claim values", "service account apps/intruder")
	}
	holds(t, name, 1, 1)
}

// TestAddressOutsideThePolicy must not send the pod's token to a server of the pod's choice.
func TestAddressOutsideThePolicy(t *testing.T) {
	t.Parallel()
	ours, foreign := startTrouble(t), startTrouble(t)
	name := role(t, bed.Role{})
	for what, row := range map[string]struct {
		args []string
		code codes.Code
	}{
		"not listed": {nil, codes.InvalidArgument},
		"listed":     {[]string{"--allowed-vault-addrs=https://vault.example:8200," + foreign.Address}, codes.OK},
		"any":        {[]string{"--allowed-vault-addrs=*"}, codes.OK},
	} {
		t.Run(what, func(t *testing.T) {
			foreign.Reset()
			p := startProvider(t, bed.ProviderOptions{VaultAddress: ours.Address, Args: row.args})
			v := newVolume(t, p, class(name, credentials(name)))
			v.Attributes = map[string]string{"vaultAddress": foreign.Address} // as a pod can, whatever its class says
			_, err := mount(t, v)
			if row.code == codes.OK {
				must(t, "mount", err)
				if foreign.Total() != 2 {
					t.Errorf("requests to the address: got %v, want a login and a read", foreign.Requests())
				}
				return
			}
			wantStatus(t, err, row.code, "vaultAddress", foreign.Address, "operator's policy")
			if foreign.Total() != 0 {
				t.Errorf("requests to the address: got %v, want none", foreign.Requests())
			}
		})
	}
}

// TestTLSFilesOutsideTheDirectory has a class reach for files of the node by way of the operator's TLS directory.
func TestTLSFilesOutsideTheDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority, err := shared.bed.NewAuthority()
	must(t, "authority", err)
	pem, err := os.ReadFile(authority.CertFile)
	must(t, "authority", err)
	inside := filepath.Join(dir, "tls")
	must(t, "make the directory", os.MkdirAll(filepath.Join(inside, "sub"), 0o700))
	write(t, filepath.Join(inside, "ca.crt"), string(pem))
	write(t, filepath.Join(dir, "outside.crt"), string(pem))
	write(t, filepath.Join(dir, "private"), "nobody's business")
	for link, target := range map[string]string{
		"absolute": filepath.Join(dir, "outside.crt"), "relative": "../outside.crt", "secret": "../private", "dir": "..",
		"sub/within": "../ca.crt",
	} {
		must(t, "link", os.Symlink(target, filepath.Join(inside, link)))
	}
	trouble := startTrouble(t)
	p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address, Args: []string{"--tls-dir=" + inside}})
	name := role(t, bed.Role{})

	for path, row := range map[string]struct {
		code codes.Code
		says string
	}{
		"ca.crt":                          {codes.OK, ""},
		filepath.Join(inside, "ca.crt"):   {codes.OK, ""},
		"sub/within":                      {codes.OK, ""}, // a link that stays inside, as those of a projected volume
		"../outside.crt":                  {codes.InvalidArgument, `has a ".." in it`},
		"sub/../../outside.crt":           {codes.InvalidArgument, `has a ".." in it`},
		inside + "/../outside.crt":        {codes.InvalidArgument, `has a ".." in it`},
		filepath.Join(dir, "outside.crt"): {codes.InvalidArgument, "is not below the operator's TLS directory"},
		inside + "-not/ca.crt":            {codes.InvalidArgument, "is not below the operator's TLS directory"},
		"absolute":                        {codes.FailedPrecondition, "escapes"},
		"relative":                        {codes.FailedPrecondition, "escapes"},
		"secret":                          {codes.FailedPrecondition, "escapes"},
		"dir/outside.crt":                 {codes.FailedPrecondition, "escapes"},
	} {
		trouble.Reset()
		parameters := class(name, credentials(name))
		parameters["vaultCACertPath"] = path
		v := newVolume(t, p, parameters)
		_, err := mount(t, v)
		if row.code == codes.OK {
			must(t, "mount with vaultCACertPath "+path, err)
			continue
		}
		wantStatus(t, err, row.code, row.says)
		if trouble.Total() != 0 {
			t.Errorf("vaultCACertPath %s: got the requests %v, want none", path, trouble.Requests())
		}
		if err != nil && strings.Contains(err.Error(), "nobody's business") {
			t.Errorf("vaultCACertPath %s: got error %q, want it not to show the file", path, err)
		}
	}
}
