package webhook

import (
	"errors"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"leasehold/internal/spec"
)

// file is one file that the annotations ask for.
type file struct {
	by     annotation  // who asks for it
	named  annotation  // who names it: the same, or agent-inject-file
	where  string      // the directory that its name is below, absolute
	object spec.Object // named below where, and, once it has its volume, below that one's path
}

// files returns the files of the secrets that are asked for, in the order of their names. What is wrong with them is
// denied.
func (p Policy) files(w *wish, pod *corev1.Pod) []file {
	readers := w.readers(pod)
	var files []file
	for _, s := range w.sorted() {
		// Each looks for its own faults, so that the author hears of all of them at once.
		object, made := p.object(w, s, pod)
		if !made && !s.template.given && !s.path.given { // there is no such file: that is said
			continue
		}
		name, named := w.fileName(s)
		mode := p.permissions(w, s, readers)
		if !made || !named {
			continue
		}
		object.Name, object.Mode = name, mode
		where := w.base
		if s.mount.given {
			where = s.mount.value
		}
		files = append(files, file{by: s.made, named: s.namedBy(), where: where, object: object})
	}
	for _, name := range slices.Sorted(maps.Keys(w.secrets)) {
		s := w.secrets[name]
		if s.made.key != "" {
			continue
		}
		for _, a := range s.details {
			if !a.ofNamespace { // which is right for some pods, and for others about nothing
				w.warn("%s: has no effect: %s", a, later(func() string { return w.missing(s.raw) }))
			}
		}
	}
	return files
}

// missing says that no secret of a name is asked for, and which one may be meant.
func (w *wish) missing(name string) string {
	for _, s := range w.sorted() {
		if distance(strings.ToLower(name), strings.ToLower(s.raw), 2) <= 2 {
			return "no secret " + quote(name) + " is asked for: did you mean " + s.raw + "?"
		}
	}
	return "no secret " + quote(name) + " is asked for: add agent-inject-secret-" + name + ", or remove it"
}

// namedBy returns which annotation names the file of a secret.
func (s *secret) namedBy() annotation {
	if s.file.value != "" {
		return s.file.annotation
	}
	return s.made
}

// fileName returns where the file of a secret lies below its directory. It is false when it cannot lie there: that is said
// already.
func (w *wish) fileName(s *secret) (string, bool) {
	wrong := func(format string, args ...any) (string, bool) {
		w.deny("%s: "+format, append([]any{s.namedBy()}, args...)...)
		return "", false
	}
	if s.file.value != "" {
		if slices.ContainsFunc(strings.Split(s.file.value, "/"), func(part string) bool { return strings.HasPrefix(part, "..") }) {
			return wrong(`%s has a part that begins with "..": write a path below the directory of the secrets without`, quote(s.file.value))
		}
		if len(s.file.value) > maxPath {
			return wrong("%s is longer than %d bytes: shorten it", quote(s.file.value), maxPath)
		}
		name := strings.TrimPrefix(path.Clean("/"+s.file.value), "/")
		if name == "" {
			return wrong("%s is the directory of the secrets itself: name a file in it", quote(s.file.value))
		}
		return name, true
	}
	preserve := w.preserveCase
	if s.preserveCase != nil {
		preserve = *s.preserveCase
	}
	if strings.HasPrefix(s.raw, "..") {
		return wrong(`a file's name cannot begin with "..": name it with agent-inject-file-%s`, s.raw)
	}
	if preserve {
		return s.raw, true
	}
	return strings.ToLower(s.raw), true
}

// object returns what makes the file of a secret, without its name. It is false when nothing does: that is said already.
func (p Policy) object(w *wish, s *secret, pod *corev1.Pod) (spec.Object, bool) {
	if s.template.given {
		t := spec.Template{Text: s.template.value, ErrorOnMissingKey: s.errorOnMissingKey}
		if s.left.value != "" || s.right.value != "" {
			t.Left, t.Right = orDefault(s.left.value, "{{"), orDefault(s.right.value, "}}")
		}
		if p.CheckTemplate != nil {
			if err := p.CheckTemplate(t); err != nil {
				w.deny("%s: %v", s.template.annotation, err)
				return spec.Object{}, false
			}
		}
		return spec.Object{Template: t, Format: spec.FormatJSON, Encoding: spec.UTF8}, true
	}
	for _, delimiter := range []setting{s.left, s.right} {
		if delimiter.value != "" {
			w.warn("%s: has no effect without agent-inject-template-%s: remove it", delimiter.annotation, s.raw)
		}
	}
	if s.templateFile.given {
		w.impossible("%s: %s", s.templateFile.annotation, later(func() string { return whyNoFile(s, pod) }))
	}
	if !s.path.given {
		return spec.Object{}, false
	}
	return p.defaultObject(w, s)
}

// defaultObject returns what makes the file of a secret without a template.
func (p Policy) defaultObject(w *wish, s *secret) (spec.Object, bool) {
	source, err := spec.SourcePath(s.path.value)
	if err == nil && strings.Contains(source, `"`) {
		err = errors.New("has a quotation mark in it: to send arguments, write agent-inject-template-" + s.raw +
			` like {{ with secret "pki/issue/app" "common_name=app.example" }}`)
	}
	if err != nil {
		w.deny("%s: %s %v", s.path.annotation, quote(s.path.value), err)
		return spec.Object{}, false
	}
	// In templates the path of a KV version 2 may lack its data/, so that the injector's two formats are templates here.
	template := func(body string) spec.Object {
		text := "{{ with secret " + strconv.Quote(source) + " }}" + body + "{{ end }}"
		return spec.Object{
			Template: spec.Template{Text: text, ErrorOnMissingKey: s.errorOnMissingKey},
			Format:   spec.FormatJSON, Encoding: spec.UTF8,
		}
	}
	format := func(f spec.Format) spec.Object {
		return spec.Object{Source: spec.Source{Method: "GET", Path: source}, Format: f, Encoding: spec.UTF8}
	}
	switch orDefault(w.defaultTemplate, orDefault(p.DefaultTemplate, defaultTemplates[0])) {
	case "json":
		return template("{{ .Data | toJSON }}\n"), true
	case "env":
		return format(spec.FormatEnv), true
	case "properties":
		return format(spec.FormatProperties), true
	}
	return template("{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}\n{{ end }}"), true
}

// whyNoFile says why the file of a template cannot be read. Where it lies in a ConfigMap, that is named: its text is only
// known to the API server, and a translation that depended on it would change under the pod.
func whyNoFile(s *secret, pod *corev1.Pod) string {
	instead := ": write its text as agent-inject-template-" + s.raw + ", and remove the annotation"
	name := s.templateFile.value
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		for _, m := range c.VolumeMounts {
			key, below := strings.CutPrefix(path.Clean(name), path.Clean(m.MountPath)+"/")
			if !below {
				continue
			}
			for _, v := range pod.Spec.Volumes {
				if v.Name == m.Name && v.ConfigMap != nil {
					return "no agent is here that could read the file, and what is in ConfigMap " + quote(v.ConfigMap.Name) + " (" +
						quote(key) + ") is not looked up at admission" + instead
				}
			}
		}
	}
	return "no agent is here that could read the file" + instead
}

func orDefault(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
