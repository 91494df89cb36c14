package webhook

import (
	"slices"
	"strings"

	"leasehold/internal/spec"
)

// annotationPrefix is before the slash of every annotation of Vault's sidecar injector.
const annotationPrefix = "vault.hashicorp.com/"

// Annotations of the pod as a whole that say whether there is anything to do.
const (
	injectKey = annotationPrefix + "agent-inject"
	statusKey = annotationPrefix + "agent-inject-status"
	injected  = "injected" // the value of statusKey of a pod that is done with
)

// code says what becomes of an annotation that was written for the sidecar injector.
type code int

// What becomes of an annotation.
const (
	same    code = iota + 1 // it means here what it means there: obey
	mapped                  // something here has the same purpose: obey by that
	silent                  // it tunes a process that does not exist here: say nothing
	useless                 // it has no effect here, which its author may not expect: warn
	guarded                 // obey where the operator allows it, else deny
	refused                 // it cannot work without a sidecar: deny, or warn if the operator says so
)

// row is one annotation of the injector.
type row struct {
	key   string // below the prefix
	named bool   // the key goes on with "-" and a name that is not empty: mostly of the secret that it is about
	code  code
	truth bool // the value is true or false; an empty one is false

	// why is what is said about a useless or a refused one: the reason, and what to do instead.
	why string

	// read takes what the annotation says. It is nil where that is nothing: for a silent, a useless, a refused one, and for
	// the two that are looked at before all others.
	read func(*wish, annotation)
}

// String returns the key as documentation writes it.
func (r row) String() string {
	switch {
	case !r.named:
		return r.key
	case r.code == silent:
		return r.key + "-*"
	case r.key == "auth-config":
		return r.key + "-P"
	}
	return r.key + "-N"
}

// rows are all annotations of the injector, grouped by what they are about.
var rows = []row{
	{key: "agent-inject", code: same, truth: true},
	{key: "agent-inject-status", code: same},
	{key: "agent-request-namespace", code: silent},

	// The secrets and their files.
	{key: "agent-inject-secret", named: true, code: same, read: readPath},
	{key: "agent-inject-template", named: true, code: mapped, read: readTemplate},
	{key: "agent-inject-template-file", named: true, code: refused, read: readTemplateFile},
	{key: "agent-inject-default-template", code: same, read: readDefaultTemplate},
	{key: "agent-template-left-delim", named: true, code: same, read: ofSecret(func(s *secret) *setting { return &s.left })},
	{key: "agent-template-right-delim", named: true, code: same, read: ofSecret(func(s *secret) *setting { return &s.right })},
	{key: "agent-inject-file", named: true, code: same, read: readFile},
	{key: "agent-inject-perms", named: true, code: mapped, read: readPermissions},
	{key: "error-on-missing-key", named: true, code: same, truth: true, read: readErrorOnMissingKey},
	{key: "agent-inject-command", named: true, code: refused, why: "no agent is here that could run a command after a change: let " +
		"the application watch its files, or restart it with a tool that watches SecretProviderClassPodStatus, and remove the annotation"},
	{key: "preserve-secret-case", code: same, truth: true, read: truthOf(func(w *wish) *bool { return &w.preserveCase })},
	{key: "preserve-secret-case", named: true, code: same, truth: true, read: readPreserveCase},
	{key: "secret-volume-path", code: same, read: readBase},
	{key: "secret-volume-path", named: true, code: mapped, read: readVolumePath},
	{key: "agent-inject-token", code: mapped, truth: true, read: truthOf(func(w *wish) *bool { return &w.token })},

	// The pod.
	{key: "agent-inject-containers", code: same, read: readContainers},
	{key: "agent-init-first", code: silent},
	{key: "agent-pre-populate", code: same, truth: true, read: truthOf(func(w *wish) *bool { return &w.initContainers })},
	{key: "agent-pre-populate-only", code: mapped, truth: true, read: truthOf(func(w *wish) *bool { return &w.lifecycle.Frozen })},
	{key: "agent-share-process-namespace", code: same, truth: true, read: asItIs(func(w *wish) *setting { return &w.shareProcesses })},
	{key: "agent-service-account-token-volume-name", code: mapped, read: lineOf(func(w *wish) *setting { return &w.tokenVolume })},

	// The agent itself.
	{key: "agent-copy-volume-mounts", code: silent},
	{key: "agent-json-patch", code: useless, why: "it changes the agent's container, and there is none: remove it"},
	{key: "agent-init-json-patch", code: useless, why: "it changes the agent's init container, and there is none: remove it"},
	{key: "agent-configmap", code: refused, why: "there is no agent that could be configured: write its templates as " +
		"agent-inject-template-<name> and its auto_auth as role, auth-type and auth-path, and remove the annotation"},
	{key: "agent-extra-secret", code: refused, why: "there is no agent that could use the Secret: mount it into the container that " +
		"needs it, and remove the annotation"},
	{key: "agent-image", code: silent},
	{key: "agent-limits", named: true, code: silent},
	{key: "agent-requests", named: true, code: silent},
	{key: "agent-run-as-user", code: silent},
	{key: "agent-run-as-group", code: silent},
	{key: "agent-run-as-same-user", code: silent},
	{key: "agent-set-security-context", code: silent},
	{key: "go-max-procs", code: silent},
	{key: "log-level", code: silent},
	{key: "log-format", code: silent},
	{key: "auth-min-backoff", code: silent},
	{key: "auth-max-backoff", code: silent},
	{key: "agent-auto-auth-exit-on-err", code: silent},
	{key: "template-config-exit-on-retry-failure", code: silent},
	{key: "template-max-connections-per-host", code: silent},
	{key: "agent-disable-idle-connections", code: silent},
	{key: "agent-disable-keep-alives", code: silent},
	{key: "agent-telemetry", named: true, code: silent},
	{key: "agent-cache-listener-port", code: silent},
	{key: "agent-cache-use-auto-auth-token", code: silent},
	{key: "agent-cache-exit-on-err", code: silent},
	{key: "agent-cache-enable", code: refused, truth: true, why: "there is no agent that could answer the application at " +
		"localhost:8200: let it read files, or log in by itself with the token of agent-inject-token, and remove the annotation"},
	{key: "agent-enable-quit", code: useless, truth: true, why: "there is no agent to quit, and nothing holds up a Job's end: do not " +
		"post to /agent/v1/quit, and remove the annotation"},

	// The connection to Vault.
	{key: "service", code: guarded, read: lineOf(func(w *wish) *setting { return &w.address })},
	{key: "namespace", code: same, read: lineOf(func(w *wish) *setting { return &w.vaultNamespace })},
	{key: "role", code: same, read: lineOf(func(w *wish) *setting { return &w.role })},
	{key: "auth-type", code: same, read: lineOf(func(w *wish) *setting { return &w.authType })},
	{key: "auth-path", code: same, read: lineOf(func(w *wish) *setting { return &w.authPath })},
	{key: "auth-config", named: true, code: refused, read: readAuthConfig},
	{key: "proxy-address", code: guarded, read: lineOf(func(w *wish) *setting { return &w.proxy })},
	{key: "tls-skip-verify", code: guarded, truth: true, read: asItIs(func(w *wish) *setting { return &w.skipVerify })},
	{key: "tls-secret", code: mapped, read: lineOf(func(w *wish) *setting { return &w.tlsSecret })},
	{key: "tls-server-name", code: same, read: lineOf(func(w *wish) *setting { return &w.serverName })},
	{key: "ca-cert", code: mapped, read: lineOf(func(w *wish) *setting { return &w.caCert })},
	{key: "client-cert", code: mapped, read: lineOf(func(w *wish) *setting { return &w.clientCert })},
	{key: "client-key", code: mapped, read: lineOf(func(w *wish) *setting { return &w.clientKey })},
	{key: "ca-key", code: refused, why: "it names a directory of authorities in the agent's container, and there is none: put the " +
		"authority's certificate as ca.crt into a Secret, name it with tls-secret, and remove the annotation"},
	{key: "client-max-retries", code: useless, read: readRetries},
	{key: "client-timeout", code: useless, read: readTimeout},

	// The life of the credentials.
	{key: "template-static-secret-render-interval", code: mapped, read: readRefresh},
	{key: "template-lease-renewal-threshold", code: mapped, read: readRenewAt},
	{key: "agent-revoke-on-shutdown", code: silent},
	{key: "agent-revoke-grace", code: mapped, read: readRevokeGrace},
}

// annotation is one annotation of a pod, or of its namespace as a default for its pods.
type annotation struct {
	key         string // whole, with the prefix
	name        string // of a named row: what follows the row's key and the dash, as it is written
	value       string
	ofNamespace bool
	truth       bool // of a row of truth values: which one
}

// String returns the key, and where its author finds it if that is not the pod.
func (a annotation) String() string {
	if a.ofNamespace {
		return a.key + " (of the namespace)"
	}
	return a.key
}

// find returns the row of a key below the prefix and, if the row is named, the name. Of several the one with the longest
// key is meant: agent-inject-template-file-x is a template file and not the template of file-x.
func find(key string) (r row, name string, found bool) {
	best := -1
	for i, candidate := range rows {
		suffix, ok := strings.CutPrefix(key, candidate.key)
		if !ok || candidate.named != strings.HasPrefix(suffix, "-") || !candidate.named && suffix != "" {
			continue
		}
		if best < 0 || len(candidate.key) > len(rows[best].key) {
			best, name = i, strings.TrimPrefix(suffix, "-")
		}
	}
	if best < 0 {
		return row{}, "", false
	}
	return rows[best], name, true
}

// collect returns the annotations with the prefix, sorted by key: those of the pod, and those of its namespace that the pod
// does not have. Whether a pod is translated is for the pod alone to say.
func collect(pod, namespace map[string]string) []annotation {
	var all []annotation
	for key, value := range pod {
		if strings.HasPrefix(key, annotationPrefix) {
			all = append(all, annotation{key: key, value: value})
		}
	}
	for key, value := range namespace {
		if _, ok := pod[key]; !ok && strings.HasPrefix(key, annotationPrefix) {
			all = append(all, annotation{key: key, value: value, ofNamespace: true})
		}
	}
	slices.SortFunc(all, func(a, b annotation) int { return strings.Compare(a.key, b.key) })
	return all
}

// suggest returns the known key, below the prefix, that was probably meant by an unknown one; "" when none is close. The
// name in a key is kept as it is.
func suggest(key string) string {
	best, limit := "", 2
	if len(key) < 6 {
		limit = 1
	}
	for _, r := range rows {
		if r.named && distance(strings.ToLower(key), r.key, limit) <= limit {
			best, limit = r.key+"-<name>", distance(strings.ToLower(key), r.key, limit)-1
		}
		ends := []int{len(key)}
		if r.named {
			ends = ends[:0]
			for i := range key {
				if key[i] == '-' && i+1 < len(key) {
					ends = append(ends, i)
				}
			}
		}
		for _, end := range ends {
			if d := distance(strings.ToLower(key[:end]), r.key, limit); d <= limit {
				best, limit = r.key+key[end:], d-1
			}
		}
	}
	return best
}

// distance counts the typing errors between two words: letters too many, too few or wrong, or swapped with their neighbour.
// Beyond a limit it may return any number above the limit.
func distance(a, b string, limit int) int {
	if len(a) > len(b)+limit || len(b) > len(a)+limit {
		return limit + 1
	}
	return spec.Distance(a, b)
}
