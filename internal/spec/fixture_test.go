package spec

import (
	"encoding/json"
	"strings"
	"testing"
)

// canary is a secret of the fixture. It must not be found in any fault.
const canary = "eyJhbGciOiJSUzI1NiJ9.Q0FOQVJZ.c2lnbmF0dXJl"

const (
	certPEM = "-----BEGIN CERTIFICATE-----\nY2VydA==\n-----END CERTIFICATE-----\n"
	keyPEM  = "-----BEGIN EC PRIVATE KEY-----\na2V5\n-----END EC PRIVATE KEY-----\n"
)

const validObjects = `
- objectName: db-user
  secretPath: database/creds/app
  secretKey: username
- objectName: db-password
  secretPath: /v1/database/creds/app
  secretKey: password
  filePermission: 0600
- objectName: tls/bundle.json
  secretPath: pki/issue/app
  method: put
  secretArgs:
    ttl: 24h
    common_name: app.example
`

// call is a valid Mount call, which a test changes in one place.
type call struct {
	operator   Operator
	attributes map[string]string
	secrets    map[string]string
	request    Request // but for attributes and secrets
}

func validCall() *call {
	return &call{
		operator: Operator{
			Vault: Vault{
				Address:  "https://vault.example:8200",
				Audience: "vault",
				TLS:      TLS{CACert: File{Path: "/operator/ca.pem"}},
			},
			TLSDirectory: "/tls",
		},
		attributes: map[string]string{
			"roleName":                               "db-app",
			"objects":                                validObjects,
			"secretProviderClass":                    "db",
			"csi.storage.k8s.io/pod.name":            "app-0",
			"csi.storage.k8s.io/pod.namespace":       "shop",
			"csi.storage.k8s.io/pod.uid":             "1d2c3b4a-0000-4000-8000-5e6f7a8b9c0d",
			"csi.storage.k8s.io/serviceAccount.name": "app",
			"csi.storage.k8s.io/ephemeral":           "true",
			tokensKey:                                tokensJSON("vault"),
		},
		secrets: map[string]string{},
		request: Request{Permission: "420", TargetPath: "/var/lib/kubelet/pods/x/volumes/kubernetes.io~csi/v/mount"},
	}
}

// tokensJSON is what kubelet writes for some audiences. Each token ends with its audience.
func tokensJSON(audiences ...string) string {
	tokens := map[string]map[string]string{}
	for _, a := range audiences {
		tokens[a] = map[string]string{"token": canary + a, "expirationTimestamp": "2030-01-02T03:04:05Z"}
	}
	return encode(tokens)
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (c *call) Request() Request {
	r := c.request
	if r.Attributes == "" {
		r.Attributes = encode(c.attributes)
	}
	if r.Secrets == "" {
		r.Secrets = encode(c.secrets)
	}
	return r
}

func (c *call) Parse() (Mount, error) { return c.operator.Parse(c.Request()) }

// object makes the call's objects one valid object, with lines of YAML added.
func (c *call) object(lines ...string) {
	c.attributes["objects"] = "- objectName: o\n  secretPath: kv/o\n  " + strings.Join(lines, "\n  ")
}

func mustParse(t *testing.T, c *call) Mount {
	t.Helper()
	m, err := c.Parse()
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return m
}
