// Package webhook lets pods that were annotated for Vault's sidecar injector work without a sidecar. Before such a pod is
// created, the API server asks here, and [Policy.Translate] turns its annotations into what the provider understands: a
// volume of the Secrets Store CSI driver, mounted where the injector would have put its files, and a SecretProviderClass that
// says what is in it.
//
// The way of an annotation is short. The table in annotations.go says of each of them what becomes of it; reading the table
// from top to bottom tells the whole contract. What the annotations say is gathered in a wish. From the wish come the
// connection to Vault, the files with their templates and permissions, and the volumes that the files lie in; from each
// volume a [Class], named by its content, so that a thousand equal pods have one; and at the end the pod is patched. All of
// this is pure: a pod in, a pod out. What cannot work is said at once, with the annotation, the reason and what to do: as a
// [Denial], or, where the pod does without, as a warning.
package webhook

import (
	"errors"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"leasehold/internal/spec"
)

// Translation is what becomes of a pod.
type Translation struct {
	Pod      *corev1.Pod // a patched copy; equal to the given one when nothing is to be done
	Classes  []Class     // SecretProviderClasses that must exist before the pod is admitted
	Warnings []string    // each with the annotation, the reason and what to do; the API server cuts them at 256 bytes
	Skipped  string      // why nothing was to be done; "" when translated
}

// Translate turns the annotations of a pod into volumes and classes. namespace holds the annotations of the pod's
// namespace: defaults, with the same keys. The pod's own namespace must be filled in.
//
// It is pure: equal pods have equal translations, and the translation of a translated pod changes nothing. (That one is
// translated once more since its classes may be gone: a pod that is restored from a backup brings its volumes along, and
// not their classes.) The error is a Denial.
func (p Policy) Translate(pod *corev1.Pod, namespace map[string]string) (Translation, error) {
	t := Translation{Pod: pod.DeepCopy()}
	why, denial := whyNot(pod)
	if denial != nil {
		return t, denial
	}
	if why != "" {
		t.Skipped = why
		return t, nil
	}
	if denial := beyond(pod); len(denial) > 0 {
		return t, denial
	}

	f := &findings{lenient: p.Impossible == Warn}
	w := readWish(collect(pod.Annotations, namespace), f)
	c := p.connection(w, pod)
	volumes := w.volumes(p.files(w, pod))
	w.checkPod(pod)
	if len(w.sorted()) == 0 && !w.token && len(f.denials) == 0 {
		w.warn("%s: no secret is asked for: add agent-inject-secret-<name> with its path in Vault", injectKey)
	}
	classes := make(map[string]Class, len(volumes)) // by volume
	for _, v := range volumes {
		if len(v.files) > 0 || v.tokenFile != "" {
			classes[v.name] = newClass(p.ProviderName, w.parameters(c, v))
			t.Classes = append(t.Classes, classes[v.name])
		}
	}
	p.judge(f, c, volumes, classes)
	patched := pod.DeepCopy()
	w.patch(patched, volumes, classes, c.tlsSecret)
	t.Warnings = f.warnings
	if len(f.denials) > 0 {
		t.Classes = nil
		return t, f.denials
	}
	t.Pod = patched
	return t, nil
}

// whyNot tells why there is nothing to do for a pod, or denies it before its annotations are looked at any closer.
func whyNot(pod *corev1.Pod) (why string, denial error) {
	text, annotated := pod.Annotations[injectKey]
	if !annotated {
		return "the pod is not annotated", nil
	}
	asked, ok := parseTruth(text)
	switch {
	case !ok:
		return "", Denial{injectKey + ": " + quote(text) + ` is no truth value: write "true" or "false"`}
	case !asked:
		return injectKey + " is false", nil
	case pod.Annotations[statusKey] == injected && !slices.ContainsFunc(pod.Spec.Volumes, isOurs):
		return statusKey + " is " + injected + ": somebody else has seen to the pod", nil
	case pod.Annotations[corev1.MirrorPodAnnotationKey] != "":
		return "the pod is the image of a static pod, which the API server cannot change", nil
	case pod.Status.Phase != "" && pod.Status.Phase != corev1.PodPending:
		return "the pod is not new: its phase is " + string(pod.Status.Phase), nil
	case pod.Namespace == "kube-system" || pod.Namespace == "kube-public":
		return "", Denial{injectKey + ": pods of namespace " + pod.Namespace + " get no secrets from Vault: move the pod to another one"}
	}
	return "", nil
}

// nothing is a template that makes an empty file. A class without any object is none, and one that only delivers the token
// would be one.
const (
	nothingName = ".leasehold"
	nothing     = "{{/* this volume is for the token alone */}}"
)

// parameters returns what the class of a volume says.
func (w *wish) parameters(c connection, v volume) map[string]string {
	class := spec.Class{Vault: c.vault, Lifecycle: w.lifecycle}
	class.Lifecycle.TokenFile = v.tokenFile
	for _, f := range v.files {
		class.Objects = append(class.Objects, f.object)
	}
	if len(v.files) == 0 {
		class.Objects = []spec.Object{{
			Name: nothingName, Template: spec.Template{Text: nothing},
			Format: spec.FormatJSON, Encoding: spec.UTF8, Mode: defaultMode,
		}}
	}
	parameters := class.Parameters()
	if c.rootNamespace {
		parameters["vaultNamespace"] = "/" // an empty parameter would be none, and leave the provider's default
	}
	if w.skipVerify.given && !w.skipVerify.truth { // likewise
		parameters["vaultSkipTLSVerify"] = "false"
	}
	return parameters
}

// judge hands the classes to the parser that will read them in the provider, so that whoever writes the annotations hears of
// a fault before there is a pod that cannot start. What the parser finds is put down to the annotation that it comes from, by
// handing over that one's parameter or object alone.
func (p Policy) judge(f *findings, c connection, volumes []volume, classes map[string]Class) {
	var faults []string
	for _, v := range volumes {
		if class, ok := classes[v.name]; ok {
			faults = append(faults, faultsOf(p.operator(), class.Parameters)...)
		}
	}
	if len(faults) == 0 {
		return
	}
	alone := func(by annotation, name, value string) {
		sound := map[string]string{"roleName": "role", "objects": "- {objectName: file, secretPath: secret/file}"}
		sound[name] = value
		operator := p.operator()
		if name != "vaultAddress" {
			operator.Vault.Address = "https://vault.example" // whatever is wrong with the real one is said of that
		}
		if found := faultsOf(operator, sound); len(found) > 0 {
			f.deny("%s: %s", by, found[0]) // others, if any, follow from it
		}
	}
	parameters := spec.Class{Vault: c.vault}.Parameters()
	for _, name := range slices.Sorted(maps.Keys(c.said)) {
		alone(c.said[name], name, parameters[name])
	}
	for _, v := range volumes {
		for _, o := range v.files {
			alone(o.named, "objects", spec.Class{Objects: []spec.Object{o.object}}.Parameters()["objects"])
		}
	}
	if len(f.denials) > 0 {
		return
	}
	for _, fault := range faults {
		f.deny("%s: what the annotations ask for together is no class: %s (secrets with a secret-volume-path-<name> elsewhere have a "+
			"class of their own)", injectKey, fault)
	}
}

// faultsOf returns what the provider would find wrong with parameters, as sentences.
func faultsOf(operator spec.Operator, parameters map[string]string) []string {
	_, err := operator.CheckParameters(parameters)
	var faults spec.Faults
	switch {
	case err == nil:
		return nil
	case errors.As(err, &faults):
		return faults
	}
	return []string{err.Error()}
}
