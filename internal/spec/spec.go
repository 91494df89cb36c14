// Package spec is the vocabulary of Leasehold: what a SecretProviderClass (SPC) asks for, in types.
//
// The driver hands a Mount call its parameters as strings in JSON, some of them with YAML inside. [Operator.Parse]
// turns them into a [Mount] once, at the door, with the operator's defaults and policy applied; behind it nobody sees
// a map of strings. The names of the parameters and their meaning are those of HashiCorp's vault-csi-provider, so that
// its SPCs work unchanged.
package spec

import (
	"io/fs"
	"path/filepath"
	"time"

	"leasehold/internal/redact"
)

// Mount is one Mount call: what a volume of a pod is to show.
type Mount struct {
	Class  Class
	Pod    Pod
	Volume string      // the target path: with the pod's UID it identifies the volume
	Mode   fs.FileMode // 0 to 0777: the driver's, for files that have none of their own

	// Ignored names the parameters that mean nothing to Leasehold, sorted. HashiCorp's vault-csi-provider ignores
	// such parameters silently, so they are no fault, but their author should hear of them.
	Ignored []string
}

// VolumeName is the name that the pod gives to its volume, from a target path as kubelet makes it:
// .../volumes/kubernetes.io~csi/<name>/mount. Of any other path it is all.
func VolumeName(target string) string {
	volume, last := filepath.Split(target)
	if kind, name := filepath.Split(filepath.Clean(volume)); last == "mount" && filepath.Base(kind) == "kubernetes.io~csi" {
		return name
	}
	return target
}

// Class is what one SPC asks for: a Vault connection, a list of objects, and how they are kept alive.
type Class struct {
	Vault     Vault
	Objects   []Object // at least one, in the order of the SPC
	Lifecycle Lifecycle
}

// Vault says which Vault to talk to, and as whom. It is comparable: two volumes, or two moments of one volume, that
// differ in any of it need different logins.
type Vault struct {
	Address   string // origin and path prefix without a trailing slash, such as https://vault.example:8200
	Namespace string // Vault Enterprise or OpenBao namespace, or ""
	AuthPath  string // mount path of the auth method below auth/, such as "kubernetes"
	Role      string
	Audience  string // of the service account token that logs in, as the cluster issued it
	TLS       TLS
}

// TLS is the material of the connection to Vault. The zero value uses the system's certificate authorities.
type TLS struct {
	CACert      File   // PEM bundle of certificate authorities
	CADirectory File   // directory of such bundles
	ClientCert  File   // PEM client certificate, with ClientKey
	ClientKey   File   //
	ServerName  string // name to verify instead of the address's host
	SkipVerify  bool

	// The PEM texts of the volume's nodePublishSecretRef (its keys ca.crt, tls.crt and tls.key); each takes the
	// place of the file above.
	CA   string
	Cert string
	Key  redact.String `json:"-"` // a secret: who writes a class down has to write it apart
}

// File names a file on the provider's side. With a Root it was named by a tenant: Path is relative, and nothing
// outside Root may be read through it, not by "..", not by a symbolic link. Without a Root it is the operator's own.
type File struct{ Root, Path string }

// Object is one file of the volume.
type Object struct {
	Name     string      // the file's path in the volume: relative, clean, no component that starts with ".."
	Source   Source      // where its bytes come from; the zero Source if a template asks by itself
	Key      string      // the field to take; "" takes the whole answer
	Format   Format      // how the whole answer is written, without Key and Template
	Template Template    // makes the whole file; without Text there is none
	Encoding Encoding    // how the value of Key is encoded in Vault
	Mode     fs.FileMode // 0 to 0777: the object's filePermission, or else the driver's
}

// Template is a text/template that makes a file.
type Template struct {
	Text              string // "": no template
	Left, Right       string // delimiters, both or none; "" is {{ and }}
	ErrorOnMissingKey bool   // a missing key of a map is an error, rather than "<no value>"
}

// Format says how a whole answer is written.
type Format int

// The formats of an object without a key.
const (
	FormatJSON       Format = iota + 1 // the answer with its lease, as vault-csi-provider writes it
	FormatMap                          // "key: value" lines, as the injector's default template writes them
	FormatData                         // the data alone as JSON, as the injector's json template writes it
	FormatEnv                          // KEY='value' lines that a shell can source
	FormatProperties                   // a file of Java properties
)

// Source is one request to Vault. Objects with equal sources share one request and one lease, so that their user name
// and password belong together.
type Source struct {
	Method string // GET, LIST, PUT or POST
	Path   string // without slashes around it or "v1/", not escaped; from the first "?" on, the encoded query
	Args   string // the request's body as canonical JSON (keys sorted), or ""

	// Lenient is how templates ask, since consul-template does: the path of a KV version 2 may lack the data/ (in a LIST
	// the metadata/) behind the mount, and a LIST of what is not there is an empty one.
	Lenient bool `json:",omitempty"`
}

// Encoding says how a value in Vault is encoded; the file holds the decoded bytes.
type Encoding int

// The encodings of an object's value.
const (
	UTF8   Encoding = iota + 1 // write the text as it is
	Base64                     // decode standard base64 with padding
	Hex                        // decode hexadecimal digits
)

// Pod is who mounts. All of it comes from csi.storage.k8s.io/* attributes, which kubelet sets and tenants cannot.
type Pod struct {
	Namespace, Name, UID, ServiceAccount string

	Token        redact.String `json:"-"` // the service account token of the class's audience; as TLS.Key in JSON
	TokenExpires time.Time     // when Token ends, in UTC; zero if nobody says
}

// Operator is what the operator of a node decides for all of its volumes: defaults for what a class leaves out, and
// limits to what it may ask for.
type Operator struct {
	Vault Vault // defaults; an empty field has none

	// Addresses lists, beside Vault.Address, the addresses that a class may name; "*" allows any. When it is
	// empty and Vault.Address is too, any address is allowed.
	Addresses []string

	TLSDirectory string // classes may name TLS files below it; "" forbids them
	SkipVerify   bool   // classes may ask for vaultSkipTLSVerify

	// CheckTemplate returns what is wrong with a template before it is ever used; nil: nobody knows.
	CheckTemplate func(Template) error
}

// Request is a Mount call as the driver sends it. It carries tokens: never print it.
type Request struct {
	Attributes string // JSON object: the SPC's parameters, overwritten by the pod's volumeAttributes and by kubelet
	Secrets    string // JSON object: nodePublishSecretRef's data and, on newer clusters, the service account tokens
	Permission string // JSON number: the driver's default file mode
	TargetPath string
}

// Sources returns the distinct sources that the class names, in the order of their first object. Its templates may ask
// for more.
func (c Class) Sources() []Source {
	seen := make(map[Source]bool, len(c.Objects))
	var sources []Source
	for _, o := range c.Objects {
		if !seen[o.Source] && o.Source != (Source{}) {
			seen[o.Source] = true
			sources = append(sources, o.Source)
		}
	}
	return sources
}
