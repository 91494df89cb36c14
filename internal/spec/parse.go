package spec

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"leasehold/internal/redact"
)

// Parse turns a Mount request into a Mount with the operator's defaults applied, or returns [Faults]: all of them at
// once. The pod's identity comes from kubelet's attributes alone; every other attribute is a tenant's word. Beside
// Faults the Mount says no more than whose it is, as far as that is known, without a token, and what was ignored: that
// is often the misspelt name of what is missing.
func (o Operator) Parse(r Request) (Mount, error) {
	var f findings
	attributes, ok := decodeStrings(r.Attributes)
	if !ok {
		f.add("the attributes of the request are not a JSON object of strings: they must come from the driver")
	}
	secrets, ok := decodeStrings(r.Secrets)
	if !ok {
		f.add("the secrets of the request are not a JSON object of strings: they must come from the driver")
	}
	if err := f.err(); err != nil {
		return Mount{}, err // whatever else could be said would only follow from this
	}

	m := Mount{Volume: r.TargetPath, Ignored: ignored(attributes)}
	if !filepath.IsAbs(r.TargetPath) || filepath.Clean(r.TargetPath) != r.TargetPath || r.TargetPath == "/" ||
		hasControl(r.TargetPath) {
		f.add("the target path %s must be an absolute path, clean, and not the root", quote(r.TargetPath))
	}
	mode, ok := parseMode(r.Permission)
	if !ok {
		f.add("the default file permission %s must be a number from 0 to 511 (0777)", quote(r.Permission))
	}
	m.Mode = mode
	m.Pod = parsePod(attributes, &f)
	m.Class.Vault = o.parseVault(attributes, secrets, m.Ignored, &f)
	var token serviceAccountToken
	m.Class.Vault.Audience, token = chooseToken(attributes, secrets, m.Class.Vault.Audience, &f)
	m.Pod.Token, m.Pod.TokenExpires = token.token, token.expires
	if text := attributes["objects"]; strings.TrimSpace(text) == "" {
		f.add("parameter objects is missing: %s", cmp.Or(didYouMean(m.Ignored, "objects"),
			"list at least one object with objectName and secretPath"))
	} else {
		m.Class.Objects = parseObjects(text, mode, o.CheckTemplate, &f)
	}
	m.Class.Lifecycle = parseLifecycle(attributes, m.Class.Objects, &f)
	if err := f.err(); err != nil {
		m.Pod.Token, m.Pod.TokenExpires = redact.String{}, time.Time{}
		return Mount{Pod: m.Pod, Volume: m.Volume, Ignored: m.Ignored}, err
	}
	return m, nil
}

var (
	// knownParameters are those that have a meaning here.
	knownParameters = []string{
		"roleName", "vaultAddress", "vaultNamespace", "vaultAuthMountPath", "vaultKubernetesMountPath", "audience",
		"vaultCACertPath", "vaultCADirectory", "vaultTLSClientCertPath", "vaultTLSClientKeyPath", "vaultTLSServerName",
		"vaultSkipTLSVerify", "objects",
		"refresh", "renewAt", "revokeGrace", "rotation", "deliverToken",
	}
	// driverParameters are volumeAttributes that the driver reads itself and passes on.
	driverParameters = []string{"secretProviderClass", "providerName"}
)

// ignored returns the names of the attributes that mean nothing to Leasehold, sorted.
func ignored(attributes map[string]string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		switch {
		case strings.HasPrefix(name, "csi.storage.k8s.io/"):
		case slices.Contains(knownParameters, name):
		case slices.Contains(driverParameters, name):
		default:
			names = append(names, name)
		}
	}
	return names
}

// didYouMean goes on from "parameter x is missing: " when the name of an ignored parameter is nearly one of some words
// for x; else it is "".
func didYouMean(ignored []string, words ...string) string {
	ignored = ignored[:min(len(ignored), maxFaults)] // a class of more has other troubles
	for _, word := range words {
		if near := Nearest(word, ignored); near != "" {
			return fmt.Sprintf("did you mean it by %s, which means nothing?", quote(near))
		}
	}
	return ""
}

// decodeStrings decodes a JSON object of strings; "" and null are empty ones. It returns no error, because an error of
// the JSON package may quote what it read, and that may be a token.
func decodeStrings(text string) (map[string]string, bool) {
	if text == "" {
		return nil, true
	}
	var m map[string]string
	err := json.Unmarshal([]byte(text), &m)
	return m, err == nil
}

// parseMode reads the driver's default file mode, a decimal JSON number.
func parseMode(text string) (fs.FileMode, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return fs.FileMode(n), err == nil && n <= 0o777
}

// uidPattern is what a pod's UID may look like. It is a UUID, or, for a static pod, a hash; it becomes part of paths.
var uidPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func parsePod(attributes map[string]string, f *findings) Pod {
	required := func(name string) string {
		value := attributes["csi.storage.k8s.io/"+name]
		if value == "" {
			f.add("attribute csi.storage.k8s.io/%s is missing: set podInfoOnMount: true in the CSIDriver object", name)
		} else if err := checkLine(value); err != nil {
			f.add("attribute csi.storage.k8s.io/%s %s %v", name, quote(value), err)
		}
		return value
	}
	pod := Pod{
		Namespace:      required("pod.namespace"),
		Name:           required("pod.name"),
		UID:            required("pod.uid"),
		ServiceAccount: required("serviceAccount.name"),
	}
	if pod.UID != "" && !uidPattern.MatchString(pod.UID) {
		f.add("attribute csi.storage.k8s.io/pod.uid %s is not a UID: it must come from kubelet", quote(pod.UID))
	}
	return pod
}
