package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"leasehold/internal/render"
	"leasehold/internal/spec"
)

// annotated returns a pod that asks for credentials, with some more annotations, without their prefix.
func annotated(more map[string]string) *corev1.Pod {
	annotations := map[string]string{injectKey: "true", annotationPrefix + "role": "shop"}
	for key, value := range more {
		annotations[annotationPrefix+key] = value
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "app", Namespace: "shop", Annotations: annotations},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}},
	}
}

func TestRows(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range rows {
		if seen[r.String()] {
			t.Errorf("row %s is there twice", r)
		}
		seen[r.String()] = true
		if r.code < same || r.code > refused {
			t.Errorf("row %s has code %d", r, r.code)
		}
		key := r.key
		if r.named {
			key += "-x"
		}
		if got, _, ok := find(key); !ok || got.String() != r.String() {
			t.Errorf("key %s is of row %s, want %s", key, got, r)
		}
		switch isSpoken := r.code == useless || r.code == refused; {
		case isSpoken && r.read == nil && !strings.Contains(r.why, ": "):
			t.Errorf("row %s says neither why nor what to do: %q", r, r.why)
		case (!isSpoken || r.read != nil) && r.why != "":
			t.Errorf("row %s says %q to nobody", r, r.why)
		case r.code == silent && (r.read != nil || r.truth):
			t.Errorf("row %s looks at a value of which nothing is said", r)
		}
	}
}

func TestFind(t *testing.T) {
	for key, want := range map[string]struct{ row, name string }{
		"agent-inject-template-file-x":     {"agent-inject-template-file-N", "x"},
		"agent-inject-template-files-x":    {"agent-inject-template-N", "files-x"},
		"agent-inject-template-x":          {"agent-inject-template-N", "x"},
		"agent-inject-secret-":             {"agent-inject-secret-N", ""},
		"agent-inject-secret":              {"", ""},
		"agent-inject-secrets":             {"", ""},
		"agent-inject-secret-token-secret": {"agent-inject-secret-N", "token-secret"},
		"secret-volume-path":               {"secret-volume-path", ""},
		"secret-volume-path-a":             {"secret-volume-path-N", "a"},
		"agent-limits-cpu":                 {"agent-limits-*", "cpu"},
		"auth-config-token-path":           {"auth-config-P", "token-path"},
		"":                                 {"", ""},
	} {
		r, name, found := find(key)
		if found != (want.row != "") || (found && r.String() != want.row) || name != want.name {
			t.Errorf("%q: got %s, %q, %t, want %+v", key, r, name, found, want)
		}
	}
}

func TestSuggest(t *testing.T) {
	for key, want := range map[string]string{
		"agent-inject-secrets-db":    "agent-inject-secret-db",
		"Agent-Inject-Secret-Db":     "agent-inject-secret-Db",
		"agent-inject-secret":        "agent-inject-secret-<name>",
		"agent-inject-tempate":       "agent-inject-template-<name>",
		"roles":                      "role",
		"rloe":                       "role",
		"rle2":                       "",
		"secret-volumepath":          "secret-volume-path",
		"auth-confg-role":            "auth-config-role",
		"agent-run-as-usr":           "agent-run-as-user",
		"":                           "",
		strings.Repeat("long-", 200): "",
	} {
		if got := suggest(key); got != want {
			t.Errorf("%q: got %q, want %q", key, got, want)
		}
	}
}

func TestClassName(t *testing.T) {
	base := map[string]string{"roleName": "shop", "objects": "o"}
	name := className("vault", base)
	if !isClassName(name) || len(validation.IsDNS1123Label(name)) > 0 {
		t.Errorf("%q is no name", name)
	}
	if again := className("vault", maps.Clone(base)); again != name {
		t.Errorf("the same class has the names %q and %q", name, again)
	}
	seen := map[string]string{name: "the class itself"}
	for what, other := range map[string]string{
		"another provider":  className("vault2", base),
		"another value":     className("vault", map[string]string{"roleName": "shop", "objects": "p"}),
		"one more":          className("vault", map[string]string{"roleName": "shop", "objects": "o", "refresh": ""}),
		"one less":          className("vault", map[string]string{"roleName": "shop"}),
		"texts moved":       className("vault", map[string]string{"roleNam": "eshop", "objects": "o"}),
		"values swapped":    className("vault", map[string]string{"roleName": "o", "objects": "shop"}),
		"all in one":        className("vault7:objects1:o8:roleName4:shop", nil),
		"provider in front": className("vaul", map[string]string{"t": "", "roleName": "shop", "objects": "o"}),
	} {
		if seen[other] != "" {
			t.Errorf("%s has the name of %s", what, seen[other])
		}
		seen[other] = what
	}
	for _, wrong := range []string{"", "vault-", "vault-abc", "by-hand", strings.ToUpper(name), name + "0", name[:len(name)-1], "w" + name[1:]} {
		if isClassName(wrong) {
			t.Errorf("%q is taken for one of our names", wrong)
		}
	}
}

// TestDefaultTemplates executes the templates of secrets without one of their own and compares the bytes with those that
// the injector's have.
func TestDefaultTemplates(t *testing.T) {
	data := map[string]any{"username": "v-app", "password": "<&>", "none": nil, "nested": map[string]any{"a": 1}, "ttl": json.Number("3600")}
	const path = `kv/data/o"dd`
	for name, want := range map[string]string{
		"map":  "nested: map[a:1]\nnone: <no value>\npassword: <&>\nttl: 3600\nusername: v-app\n",
		"json": `{"nested":{"a":1},"none":null,"password":"\u003c\u0026\u003e","ttl":3600,"username":"v-app"}` + "\n",
	} {
		w := &wish{findings: &findings{}, defaultTemplate: name}
		o, ok := Policy{}.defaultObject(w, &secret{path: setting{annotation{value: strings.ReplaceAll(path, `"`, `\`)}, true}})
		if !ok {
			t.Fatalf("%s: %v", name, w.denials)
		}
		if err := render.New().Check(o.Template); err != nil {
			t.Errorf("%s: the renderer would refuse it: %v", name, err)
		}
		asked := ""
		parsed, err := template.New("").Funcs(template.FuncMap{
			"secret": func(path string) map[string]any { asked = path; return map[string]any{"Data": data} },
			"toJSON": func(v any) (string, error) { text, err := json.Marshal(v); return string(text), err },
		}).Parse(o.Template.Text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got bytes.Buffer
		if err := parsed.Execute(&got, nil); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.String() != want {
			t.Errorf("%s: got %q, want %q", name, got.String(), want)
		}
		if want := strings.ReplaceAll(path, `"`, `\`); asked != want {
			t.Errorf("%s: asks for %q, want %q", name, asked, want)
		}
	}
}

// TestTemplateIsChecked lets the renderer itself look at the templates.
func TestTemplateIsChecked(t *testing.T) {
	p := goldenPolicy{}.policy()
	p.CheckTemplate = render.New().Check
	_, err := p.Translate(annotated(map[string]string{"agent-inject-template-a": "x\n{{ if }}", "agent-inject-template-b": "{{ fetch }}"}), nil)
	var denial Denial
	if !errors.As(err, &denial) || len(denial) != 2 {
		t.Fatalf("got %v, want two reasons", err)
	}
	for i, want := range []string{"agent-inject-template-a: ", "agent-inject-template-b: "} {
		if !strings.HasPrefix(denial[i], annotationPrefix+want) {
			t.Errorf("got %q, want it about %s", denial[i], want)
		}
	}
	if !strings.Contains(denial[0], "line 2") {
		t.Errorf("got %q, want the second line in it", denial[0])
	}
	if !strings.Contains(denial[1], "fetch") {
		t.Errorf("got %q, want the unknown function in it", denial[1])
	}
}

func TestDenial(t *testing.T) {
	for want, denial := range map[string]Denial{
		"a":                           {"a"},
		"2 reasons: (1) a; (2) b":     {"a", "b"},
		"3 reasons: (1) ; (2) ; (3) ": {"", "", ""},
	} {
		if got := denial.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestFindingsAreSorted gives unknown keys to the pod and, between them, to its namespace.
func TestFindingsAreSorted(t *testing.T) {
	pod := annotated(map[string]string{"agent-inject-secret-a": "kv/a", "unknown-2": "", "unknown-4": "", "unknown-6": ""})
	namespace := map[string]string{annotationPrefix + "unknown-1": "", annotationPrefix + "unknown-3": "", annotationPrefix + "unknown-5": ""}
	translation, err := goldenPolicy{}.policy().Translate(pod, namespace)
	if got := translation.Warnings; err != nil || len(got) != 6 || !slices.IsSorted(got) {
		t.Errorf("got warnings %q, error %v, want one of each unknown key, in their order", got, err)
	}
}

// TestFindingsAreBounded asks for as many faults as fit.
func TestFindingsAreBounded(t *testing.T) {
	more := make(map[string]string)
	for i := range 3 * maxFindings {
		name := fmt.Sprintf("x%d", i)
		more["agent-inject-perms-"+name] = "rwx"
		more["unknown-"+name] = ""
	}
	translation, err := goldenPolicy{}.policy().Translate(annotated(more), nil)
	var denial Denial
	if !errors.As(err, &denial) || len(denial) != maxFindings || len(translation.Warnings) != maxFindings {
		t.Errorf("got %d reasons and %d warnings, want %d each", len(denial), len(translation.Warnings), maxFindings)
	}
}

// TestEqualAsksHaveOneClass annotates pods of different names, images and annotations that change nothing.
func TestEqualAsksHaveOneClass(t *testing.T) {
	first := annotated(map[string]string{"agent-inject-secret-a": "kv/data/a", "agent-inject-secret-b": "kv/data/b"})
	second := annotated(map[string]string{"agent-inject-secret-b": "/kv//data/b/", "agent-inject-secret-a": "v1/kv/data/a", "log-level": "debug", "agent-inject-status": "x"})
	second.Name, second.Spec.Containers[0].Image = "other", "other"
	var names []string
	for _, pod := range []*corev1.Pod{first, second} {
		translation, err := goldenPolicy{}.policy().Translate(pod, nil)
		if err != nil || len(translation.Classes) != 1 {
			t.Fatalf("got %v, %v", translation.Classes, err)
		}
		names = append(names, translation.Classes[0].Name)
	}
	if names[0] != names[1] {
		t.Errorf("got two classes, %q, want one", slices.Compact(names))
	}
}

// TestSecretsOfMessages puts what must not be repeated into annotations.
func TestSecretsOfMessages(t *testing.T) {
	const secret = "hunter2"
	p := goldenPolicy{}.policy()
	p.CheckTemplate = func(spec.Template) error { return errors.New("template:1: unexpected end") }
	pod := annotated(map[string]string{
		"agent-inject-template-a": "password=" + secret,
		"agent-inject-command-a":  "login " + secret,
		"service":                 "https://user:" + secret + "@vault.example",
		"proxy-address":           "http://user:" + secret + "@proxy.example",
		"agent-json-patch":        secret,
		"agent-configmap":         secret,
	})
	for _, impossible := range []Impossible{Deny, Warn} {
		p.Impossible = impossible
		translation, err := p.Translate(pod, nil)
		if err == nil {
			t.Fatal("got no denial")
		}
		if all := err.Error() + strings.Join(translation.Warnings, "\n"); strings.Contains(all, secret) {
			t.Errorf("a message repeats a secret: %s", all)
		}
	}
}
