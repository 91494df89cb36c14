package webhook

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template/parse"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"

	"leasehold/internal/render"
	"leasehold/internal/spec"
)

var update = flag.Bool("update", false, "write the golden files anew: look at each difference before it is committed")

// goldenCase is the first document of a file testdata/golden/*.in.yaml; the second one is the pod.
type goldenCase struct {
	Rows      []string          `json:"rows"`      // the rows of the table that the case is about
	Namespace map[string]string `json:"namespace"` // the annotations of the namespace
	Policy    goldenPolicy      `json:"policy"`    // what differs from the default one
}

type goldenPolicy struct {
	Address         *string  `json:"address"` // of the provider
	AuthPath        string   `json:"authPath"`
	VaultNamespace  string   `json:"vaultNamespace"`
	Addresses       []string `json:"addresses"`
	SkipVerify      bool     `json:"skipVerify"`
	ProxyAllowed    bool     `json:"proxyAllowed"`
	DefaultRole     string   `json:"defaultRole"`
	DefaultTemplate string   `json:"defaultTemplate"`
	Strict          bool     `json:"strict"`
	Warn            bool     `json:"warn"`
}

func (g goldenPolicy) policy() Policy {
	p := Policy{
		Vault:     spec.Vault{Address: "https://vault.example:8200", AuthPath: g.AuthPath, Namespace: g.VaultNamespace, Audience: "vault"},
		Addresses: g.Addresses, SkipVerify: g.SkipVerify, ProxyAllowed: g.ProxyAllowed,
		DefaultRole: g.DefaultRole, DefaultTemplate: g.DefaultTemplate,
		Permissions: Compat, Impossible: Deny, ProviderName: "vault", CheckTemplate: checkSyntax,
	}
	if g.Address != nil {
		p.Vault.Address = *g.Address
	}
	if g.Strict {
		p.Permissions = Strict
	}
	if g.Warn {
		p.Impossible = Warn
	}
	return p
}

// checkSyntax stands in for the renderer's check, of which these files are not to depend.
func checkSyntax(t spec.Template) error {
	tree := parse.New("template")
	tree.Mode = parse.SkipFuncCheck
	_, err := tree.Parse(t.Text, t.Left, t.Right, make(map[string]*parse.Tree))
	return err
}

// goldenResult is the first document of a file testdata/golden/*.out.yaml. The second one is the pod, unless it is denied or
// left alone.
type goldenResult struct {
	Denied   []string      `json:"denied,omitempty"`
	Skipped  string        `json:"skipped,omitempty"`
	Warnings []string      `json:"warnings,omitempty"`
	Classes  []goldenClass `json:"classes,omitempty"`
}

type goldenClass struct {
	Name       string            `json:"name"`
	Provider   string            `json:"provider"`
	Parameters map[string]string `json:"parameters"`
}

const documents = "---\n"

// readGolden reads a case and its pod.
func readGolden(t testing.TB, file string) (goldenCase, *corev1.Pod) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first, second, ok := strings.Cut(string(text), documents)
	if !ok {
		t.Fatalf("%s: no second document", file)
	}
	var c goldenCase
	if err := yaml.UnmarshalStrict([]byte(first), &c); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(second), pod); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return c, pod
}

// writeResult writes a translation as a golden file has it.
func writeResult(t testing.TB, translation Translation, err error) []byte {
	t.Helper()
	r := goldenResult{Skipped: translation.Skipped, Warnings: translation.Warnings}
	var denial Denial
	if errors.As(err, &denial) {
		r.Denied = denial
	} else if err != nil {
		t.Fatalf("the error is no Denial: %v", err)
	}
	for _, c := range translation.Classes {
		r.Classes = append(r.Classes, goldenClass{Name: c.Name, Provider: c.Provider, Parameters: c.Parameters})
	}
	text, err := yaml.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if r.Denied == nil && r.Skipped == "" {
		pod, err := yaml.Marshal(translation.Pod)
		if err != nil {
			t.Fatal(err)
		}
		text = append(append(text, documents...), pod...)
	}
	return text
}

func goldenFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/golden/*.in.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	return files
}

// TestGolden translates the pod of each case and compares what becomes of it. It fails as well when a row of the table has
// no case: a case counts for the rows that it names, each of which an annotation of the pod or of the namespace must be of.
func TestGolden(t *testing.T) {
	covered := make(map[string]bool)
	files := goldenFiles(t)
	renderer := render.New()
	failed := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".in.yaml")
		ok := t.Run(name, func(t *testing.T) {
			c, pod := readGolden(t, file)
			present := rowsOf(pod.Annotations, c.Namespace)
			for _, r := range c.Rows {
				if !present[r] {
					t.Errorf("names the row %q, of which neither the pod nor the namespace has an annotation", r)
				}
				covered[r] = true
			}
			if len(c.Rows) == 0 {
				t.Error("names no row")
			}
			given := pod.DeepCopy()
			translation, err := c.Policy.policy().Translate(pod, c.Namespace)
			if !equality.Semantic.DeepEqual(pod, given) {
				t.Error("the given pod was changed")
			}
			if (err != nil || translation.Skipped != "") && !equality.Semantic.DeepEqual(translation.Pod, given) {
				t.Error("the pod is changed though it is denied or skipped")
			}
			for _, w := range translation.Warnings {
				if len(w) > 256 {
					t.Errorf("a warning of %d bytes is cut by the API server: %s", len(w), w)
				}
			}
			operator := c.Policy.policy().operator()
			operator.CheckTemplate = renderer.Check
			for _, class := range translation.Classes {
				if _, err := operator.CheckParameters(class.Parameters); err != nil {
					t.Errorf("the provider refuses class %s: %v", class.Name, err)
				}
			}
			got := writeResult(t, translation, err)
			out := strings.TrimSuffix(file, ".in.yaml") + ".out.yaml"
			if *update {
				if err := os.WriteFile(out, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
		if !ok {
			failed++
		}
	}
	known := make(map[string]bool)
	for _, r := range rows {
		known[r.String()] = true
		if !covered[r.String()] {
			t.Errorf("row %s has no golden file", r)
		}
	}
	count := 0
	for r := range covered {
		if !known[r] {
			t.Errorf("there is no row %q", r)
			continue
		}
		count++
	}
	fmt.Printf("golden cases=%d rows=%d/%d failed=%d\n", len(files), count, len(rows), failed)
	outs, err := filepath.Glob("testdata/golden/*.out.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range outs {
		if !slices.Contains(files, strings.TrimSuffix(out, ".out.yaml")+".in.yaml") {
			t.Errorf("%s belongs to no case", out)
		}
	}
}

// rowsOf returns the rows that annotations are of.
func rowsOf(annotations ...map[string]string) map[string]bool {
	present := make(map[string]bool)
	for _, some := range annotations {
		for key := range some {
			if below, ok := strings.CutPrefix(key, annotationPrefix); ok {
				if r, _, found := find(below); found {
					present[r.String()] = true
				}
			}
		}
	}
	return present
}
