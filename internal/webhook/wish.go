package webhook

import (
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"leasehold/internal/spec"
)

// wish is what the annotations of a pod ask for, before anybody has looked at the pod or at the operator's policy.
type wish struct {
	*findings

	secrets         map[string]*secret // name as it is written -> what is said of it
	defaultTemplate string             // map, json, env or properties
	preserveCase    bool               // file names keep the case of the secrets' names
	base            string             // where secrets are mounted unless they say something else: absolute, clean
	token           bool               // the Vault token is a file, too

	containers      []string   // names of those that see the secrets, unless allContainers
	allContainers   bool       //
	containersBy    annotation // who names them
	initContainers  bool       // the init containers see them, too
	shareProcesses  setting    // a truth value
	tokenVolume     setting    // a volume of the pod with a service account token for Vault
	authConfigToken setting    // a file with such a token
	authConfigRole  setting
	authConfigMore  []parameter // the rest of auth-config

	address, vaultNamespace, role, authType, authPath, proxy setting
	tlsSecret, serverName, caCert, clientCert, clientKey     setting
	skipVerify                                               setting // a truth value

	lifecycle spec.Lifecycle
}

// setting is the value of an annotation, and who says it.
type setting struct {
	annotation

	given bool // there is such an annotation, if only with an empty value
}

// parameter is one of auth-config: the name as the agent knows it.
type parameter struct {
	setting

	parameter string
}

// secret is what the annotations say about one secret.
type secret struct {
	raw  string     // the name, as it is written in the keys
	made annotation // the first that asks for the secret, rather than saying something about it; none: key is ""

	path, template, templateFile setting
	left, right                  setting
	file, mount, mode            setting
	permissions                  fs.FileMode
	errorOnMissingKey            bool
	preserveCase                 *bool

	details []annotation // those that only say something about it
}

// The injector's defaults.
const (
	defaultBase = "/vault/secrets"
	defaultMode = 0o644
)

// readWish reads the annotations, in the order of their keys. Values that cannot be read are denied.
func readWish(all []annotation, f *findings) *wish {
	w := &wish{
		findings: f, secrets: make(map[string]*secret),
		base: defaultBase, allContainers: true, initContainers: true, lifecycle: spec.DefaultLifecycle(),
	}
	for _, a := range all {
		key := strings.TrimPrefix(a.key, annotationPrefix)
		r, name, found := find(key)
		if !found {
			w.warn("%s: unknown, so that it has no effect: %s", a, later(func() string {
				if near := suggest(key); near != "" {
					return "did you mean " + near + "?"
				}
				return "look the key up, or remove it"
			}))
			continue
		}
		if a.name = name; r.named && name == "" {
			continue
		}
		if r.truth {
			var ok bool
			if a.truth, ok = parseTruth(a.value); !ok {
				w.deny("%s: %s is no truth value: write \"true\" or \"false\"", a, quote(a.value))
				continue
			}
		}
		if r.read != nil {
			r.read(w, a)
			continue
		}
		isSaid := strings.TrimSpace(a.value) != "" && (!r.truth || a.truth)
		switch r.code {
		case useless:
			if isSaid {
				w.warn("%s: %s", a, r.why)
			}
		case refused:
			if isSaid {
				w.impossible("%s: %s", a, r.why)
			}
		case same, mapped, guarded:
			if a.ofNamespace { // agent-inject and agent-inject-status
				w.warn("%s: has no effect there: annotate the pods", a)
			}
		case silent:
		}
	}
	return w
}

// parseTruth reads a truth value as the injector does.
func parseTruth(text string) (value, ok bool) {
	if text == "" {
		return false, true
	}
	value, err := strconv.ParseBool(text)
	return value, err == nil
}

// lineOf is for a value in one line. Spaces and the newline at the end of a block text in YAML mean nothing.
func lineOf(field func(*wish) *setting) func(*wish, annotation) {
	return func(w *wish, a annotation) {
		a.value = strings.TrimSpace(a.value)
		if hasControl(a.value) {
			w.deny("%s: has a control character in it: write it in one line", a)
			return
		}
		*field(w) = setting{a, true}
	}
}

// truthOf is for a truth value, which is read already.
func truthOf(field func(*wish) *bool) func(*wish, annotation) {
	return func(w *wish, a annotation) { *field(w) = a.truth }
}

// asItIs is for a value of which it matters whether it is given, and by whom.
func asItIs(field func(*wish) *setting) func(*wish, annotation) {
	return func(w *wish, a annotation) { *field(w) = setting{a, true} }
}

// of returns the secret that an annotation is about.
func (w *wish) of(a annotation) *secret {
	s := w.secrets[a.name]
	if s == nil {
		s = &secret{raw: a.name, permissions: defaultMode}
		w.secrets[a.name] = s
	}
	return s
}

// about is of for an annotation that does not ask for the secret, but says something about it.
func (w *wish) about(a annotation) *secret {
	s := w.of(a)
	s.details = append(s.details, a)
	return s
}

// make is of for an annotation that asks for the secret.
func (w *wish) make(a annotation) *secret {
	s := w.of(a)
	if s.made.key == "" {
		s.made = a
	}
	return s
}

// sorted returns the secrets that are asked for, by name.
func (w *wish) sorted() []*secret {
	var found []*secret
	for _, name := range slices.Sorted(maps.Keys(w.secrets)) {
		if s := w.secrets[name]; s.made.key != "" {
			found = append(found, s)
		}
	}
	return found
}

// ofSecret is for a detail of a secret that is taken as it is.
func ofSecret(field func(*secret) *setting) func(*wish, annotation) {
	return func(w *wish, a annotation) { *field(w.about(a)) = setting{a, true} }
}

func readPath(w *wish, a annotation) {
	if a.value = strings.TrimSpace(a.value); a.value != "" {
		w.make(a).path = setting{a, true}
	}
}

func readTemplate(w *wish, a annotation) {
	if strings.TrimSpace(a.value) != "" {
		w.make(a).template = setting{a, true}
	}
}

func readTemplateFile(w *wish, a annotation) {
	if a.value = strings.TrimSpace(a.value); a.value != "" {
		w.make(a).templateFile = setting{a, true}
	}
}

func readDefaultTemplate(w *wish, a annotation) {
	w.defaultTemplate = strings.ToLower(strings.TrimSpace(a.value))
	if !slices.Contains(defaultTemplates, w.defaultTemplate) {
		w.deny("%s: there is no default template %s: write map, json, env or properties", a, quote(a.value))
		w.defaultTemplate = defaultTemplates[0]
	}
}

func readFile(w *wish, a annotation) {
	a.value = strings.TrimSpace(a.value)
	w.about(a).file = setting{a, true}
}

func readErrorOnMissingKey(w *wish, a annotation) { w.about(a).errorOnMissingKey = a.truth }

func readPreserveCase(w *wish, a annotation) { w.about(a).preserveCase = &a.truth }

// readPermissions reads a mode as the agent does: always octal; none and 0 are the default.
func readPermissions(w *wish, a annotation) {
	s := w.about(a)
	a.value = strings.TrimSpace(a.value)
	s.mode = setting{a, true}
	if a.value == "" {
		return
	}
	mode, err := strconv.ParseUint(a.value, 8, 32)
	switch {
	case err != nil || mode > 0o777:
		w.deny("%s: %s is not a file mode: write it in octal, from 0400 to 0777", a, quote(a.value))
	case mode != 0:
		s.permissions = fs.FileMode(mode)
	}
}

func readBase(w *wish, a annotation) {
	if where, ok := w.mountPath(a); ok {
		w.base = where
	}
}

func readVolumePath(w *wish, a annotation) {
	s := w.about(a)
	if where, ok := w.mountPath(a); ok {
		a.value = where
		s.mount = setting{a, true}
	}
}

// mountPath reads where to mount. It is false when the annotation says nothing, or nothing sensible.
func (w *wish) mountPath(a annotation) (where string, ok bool) {
	text := strings.TrimSpace(a.value)
	if text == "" {
		return "", false
	}
	where = path.Clean(text)
	switch {
	case len(text) > maxPath:
		w.deny("%s: %s is longer than %d bytes: shorten it", a, quote(text), maxPath)
	case hasControl(text) || strings.Contains(text, ":"):
		w.deny("%s: %s has a colon or a control character in it: choose a path without", a, quote(text))
	case !path.IsAbs(text):
		w.deny("%s: %s is not absolute: begin it with a slash, such as %s", a, quote(text), defaultBase)
	case where == "/":
		w.deny("%s: %s is the root of the container: name a directory of its own, such as %s", a, quote(text), defaultBase)
	case slices.Contains(strings.Split(text, "/"), ".."):
		w.deny("%s: %s has a \"..\" in it: write the path out", a, quote(text))
	default:
		return where, true
	}
	return "", false
}

func readContainers(w *wish, a annotation) {
	w.allContainers, w.containersBy = false, a
	for name := range strings.SplitSeq(a.value, ",") {
		if name = strings.TrimSpace(name); name != "" {
			w.containers = append(w.containers, name)
		}
	}
}

// readAuthConfig reads a parameter of the agent's login, whose name has a "_" for each dash.
func readAuthConfig(w *wish, a annotation) {
	var s setting
	lineOf(func(*wish) *setting { return &s })(w, a)
	switch name := strings.ReplaceAll(a.name, "-", "_"); name {
	case "role":
		w.authConfigRole = s
	case "token_path":
		w.authConfigToken = s
	default:
		w.authConfigMore = append(w.authConfigMore, parameter{s, name})
	}
}

// The provider asks Vault for many pods: how often and how long it waits is not for one of them to say.
const ownPatience = "the provider tries again and waits in its own way, for all pods alike: remove it"

func readRetries(w *wish, a annotation) {
	text := strings.TrimSpace(a.value)
	if n, err := strconv.ParseInt(text, 10, 32); text != "" && err != nil {
		w.deny("%s: %s is not a number: remove it, for it has no effect", a, quote(text))
	} else if text != "" && n != 2 {
		w.warn("%s: has no effect: %s", a, ownPatience)
	}
}

func readTimeout(w *wish, a annotation) {
	text := strings.TrimSpace(a.value)
	if d, ok := parseSeconds(text); text != "" && !ok {
		w.deny("%s: %s is not a duration: remove it, for it has no effect", a, quote(text))
	} else if text != "" && d != time.Minute {
		w.warn("%s: has no effect: %s", a, ownPatience)
	}
}

// Bounds within which the provider is asked to keep. Those of the interval and of the fraction are its own. A session that
// was replaced by another is still in use by whoever has read its files a moment ago: the injector's five seconds, which
// are about the end of the pod, would be too few.
const (
	minRefresh     = time.Second
	minRenewAt     = 0.3
	maxRenewAt     = 0.9
	minRevokeGrace = time.Minute
	maxRevokeGrace = 24 * time.Hour
)

func readRefresh(w *wish, a annotation) {
	text := strings.TrimSpace(a.value)
	d, ok := parseSeconds(text)
	switch {
	case text == "" || ok && d == 0:
		return
	case !ok || d < 0:
		w.deny("%s: %s is not a duration: write it like 90s, 5m or 1h", a, quote(text))
		return
	case d < minRefresh:
		w.warn("%s: %s is too often: secrets are read every %v", a, quote(text), minRefresh)
		d = minRefresh
	}
	w.lifecycle.Refresh = d
}

func readRenewAt(w *wish, a annotation) {
	text := strings.TrimSpace(a.value)
	if text == "" {
		return
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || !(x > 0 && x <= 1) { // NaN is in no range
		w.deny("%s: %s is not a fraction of a lease's life: write a number from %v to %v", a, quote(text), minRenewAt, maxRenewAt)
		return
	}
	if within := math.Min(math.Max(x, minRenewAt), maxRenewAt); within != x {
		w.warn("%s: %s is outside of %v to %v: leases are renewed at %v of their life", a, quote(text), minRenewAt, maxRenewAt, within)
		x = within
	}
	w.lifecycle.RenewAt = x
}

func readRevokeGrace(w *wish, a annotation) {
	text := strings.TrimSpace(a.value)
	if text == "" {
		return
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		w.deny("%s: %s is not a number of seconds: write it like 600", a, quote(text))
		return
	}
	d := time.Duration(n) * time.Second
	if within := min(max(d, minRevokeGrace), maxRevokeGrace); within != d {
		w.warn("%s: here it is how long replaced credentials live on while the pod runs, from %v to %v: it is taken for %v",
			a, minRevokeGrace, maxRevokeGrace, within)
		d = within
	}
	w.lifecycle.RevokeGrace = d
}

// parseSeconds reads a duration as Vault does: with a unit, or a number of seconds.
func parseSeconds(text string) (time.Duration, bool) {
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		return time.Duration(n) * time.Second, true
	}
	d, err := time.ParseDuration(text)
	return d, err == nil
}

// maxQuoted bounds what is repeated of an author's text. The API server cuts a warning at 256 bytes.
const maxQuoted = 60

// quote makes an author's text fit for a message: one line, no control characters, bounded in length.
func quote(text string) string {
	if len(text) <= maxQuoted {
		return strconv.Quote(text)
	}
	end := maxQuoted
	for end > maxQuoted-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return strconv.Quote(text[:end]) + "..."
}

// hasControl tells whether a text holds a control character. None belongs into a name or a path.
func hasControl(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) })
}
