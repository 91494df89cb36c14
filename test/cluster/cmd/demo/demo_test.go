package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

// documents reads the objects of a manifest.
func documents(t *testing.T, name string) []map[string]any {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var all []map[string]any
	for part := range strings.SplitSeq(string(text), "\n---\n") {
		var object map[string]any
		if err := yaml.UnmarshalStrict([]byte(part), &object); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, object)
	}
	return all
}

// at follows keys into an object; a list has one element.
func at(t *testing.T, value any, keys ...string) any {
	t.Helper()
	for _, key := range keys {
		if list, is := value.([]any); is {
			if len(list) != 1 {
				t.Fatalf("%q: %d elements, want 1", key, len(list))
			}
			value = list[0]
		}
		object, is := value.(map[string]any)
		if !is || object[key] == nil {
			t.Fatalf("there is no %q", key)
		}
		value = object[key]
	}
	return value
}

// The pods, the class, the accounts and what the program tells of them must fit together.
func TestManifests(t *testing.T) {
	accounts := make(map[any]bool)
	for _, object := range documents(t, "accounts.yaml") {
		if object["kind"] == "ServiceAccount" && at(t, object, "metadata", "namespace") == "shop" {
			accounts[at(t, object, "metadata", "name")] = true
		}
	}
	class := documents(t, "class.yaml")[0]
	parameters := at(t, class, "spec", "parameters")
	if objects, _ := at(t, parameters, "objects").(string); strings.Count(objects, "secretPath: "+facts.CredsPath+"\n") != 2 {
		t.Errorf("the class reads other paths than %s", facts.CredsPath)
	}
	if role, _ := at(t, parameters, "roleName").(string); !strings.HasSuffix(facts.RolePath, "/"+role) {
		t.Errorf("the class names the role %q, want that of %s", role, facts.RolePath)
	}
	cart := at(t, documents(t, "cart.yaml")[0], "spec", "template", "spec")
	report := at(t, documents(t, "report.yaml")[0], "spec")
	for name, spec := range map[string]any{"cart": cart, "report": report} {
		if account := at(t, spec, "serviceAccountName"); account != name || !accounts[account] {
			t.Errorf("the pods of %s have the service account %q, want one of that name in accounts.yaml", name, account)
		}
		got := at(t, spec, "volumes", "csi", "volumeAttributes", "secretProviderClass")
		if want := at(t, class, "metadata", "name"); got != want {
			t.Errorf("the pods of %s name the class %q, want %q", name, got, want)
		}
	}
	args, err := yaml.Marshal(at(t, cart, "containers", "args"))
	if err != nil || !strings.Contains(string(args), facts.Question) {
		t.Errorf("the pods do not ask %q: %s, %v", facts.Question, args, err)
	}
}

func TestExcerpt(t *testing.T) {
	const text = "spec:\n  volumes:\n    - name: db\n\n      csi: {}\n  other: 1\n"
	for begin, want := range map[string]string{
		"volumes:":   "volumes:\n  - name: db\n\n    csi: {}\n",
		"other: 1":   "other: 1\n",
		"- name: db": "- name: db\n\n  csi: {}\n",
	} {
		if got, err := excerpt(text, begin); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", begin, got, err, want)
		}
	}
	if _, err := excerpt(text, "name: db"); err == nil {
		t.Error("a line that is not there: got no error")
	}
	for file, begin := range map[string]string{"cart.yaml": "- |", "./cart.yaml": "volumes:"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := excerpt(string(text), begin); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	pods := []string{"cart-a", "cart-b"}
	const one, other = "[pod/cart-a/cart] v-a|3\n", "[pod/cart-b/cart] v-b|3\n"
	got, err := answers(one+other, pods)
	if err != nil || got["cart-a"] != "v-a|3" || got["cart-b"] != "v-b|3" {
		t.Errorf("got %q, %v", got, err)
	}
	for name, row := range map[string]struct{ log, says string }{
		"one is silent":    {one, "cart-b has said nothing"},
		"says nothing":     {one + "[pod/cart-b/cart] \n", "cart-b has said nothing"},
		"another pod":      {one + other + "[pod/cart-c/cart] v-c|3\n", "3 pods"},
		"something else":   {"error: no pods\n", "is not of a pod"},
		"nobody says more": {"", "cart-a has said nothing"},
	} {
		if _, err := answers(row.log, pods); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: got error %v, want one with %q", name, err, row.says)
		}
	}
}

func TestFailedMount(t *testing.T) {
	const scheduled = "29s   Normal   Scheduled   Pod/report   Successfully assigned\n"
	const want = "14s (x6 over 30s) Warning FailedMount Pod/report MountVolume.SetUp failed"
	got, err := failedMount(scheduled + "20s Warning FailedMount Pod/report older\n" +
		"14s (x6 over 30s)   Warning   FailedMount   Pod/report   MountVolume.SetUp failed\n")
	if err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := failedMount(scheduled); err == nil {
		t.Error("no such event: got no error")
	}
}

func TestQuietCanFail(t *testing.T) {
	before := tally{mounts: 2, requests: 4}
	for name, row := range map[string]struct {
		before, after tally
		says          string // "": it is as it should be
	}{
		"quiet":         {before, tally{8, 4}, ""},
		"more":          {before, tally{9, 4}, ""},
		"too few":       {before, tally{7, 4}, "polled 5 times"},
		"a request":     {before, tally{8, 5}, "made 1 requests"},
		"blind metrics": {tally{2, 0}, tally{8, 0}, "no requests"},
	} {
		err := quiet(row.before, row.after)
		if row.says == "" && err != nil || row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)) {
			t.Errorf("%s: got error %v, want one with %q", name, err, row.says)
		}
	}
}

func TestCount(t *testing.T) {
	const metrics = `leasehold_mount_duration_seconds_count{code="OK"} 7` + "\n" +
		`leasehold_mount_duration_seconds_count{code="Internal"} 5` + "\n" +
		`leasehold_vault_request_duration_seconds_count{operation="login",outcome="ok"} 2` + "\n" +
		`leasehold_vault_request_duration_seconds_count{operation="read",outcome="ok"} 3` + "\n"
	if got, err := count(metrics); err != nil || got != (tally{7, 5}) {
		t.Errorf("got %v, %v, want 7 Mount calls that succeeded and 5 requests", got, err)
	}
	if _, err := count(""); err == nil {
		t.Error("no metrics: got no error")
	}
}

func TestUntil(t *testing.T) {
	tries := 0
	err := until(t.Context(), time.Minute, func(context.Context) error {
		if tries++; tries < 2 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || tries != 2 {
		t.Errorf("got %v after %d tries, want none after 2", err, tries)
	}
	never := errors.New("never")
	if err := until(t.Context(), time.Millisecond, func(context.Context) error { return never }); !errors.Is(err, never) {
		t.Errorf("got %v, want what was asked last", err)
	}
}

func TestShow(t *testing.T) {
	var out bytes.Buffer
	p := page.Plain(&out)
	err := p.Step(t.Context(), "Try", "Why not.", func(ctx context.Context, text *page.Sheet) error {
		return show(ctx, text, "echo one; \\\n    echo two")
	})
	if want := "\n      $ echo one; \\\n            echo two\n      one\n      two\n"; err != nil || !strings.Contains(out.String(), want) {
		t.Errorf("got %q, %v, want %q in it", out.String(), err, want)
	}
	if _, err := shell(t.Context(), "echo why >&2; false | cat"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("a command that fails: got error %v, want one that says why", err)
	}
}

func TestEpilogue(t *testing.T) {
	var out bytes.Buffer
	s := &story{page: page.Plain(&out)}
	if err := s.epilogue(time.Second); err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > page.Width {
			t.Errorf("a line of %d columns, want %d at most: %s", n, page.Width, line)
		}
		target, is := strings.CutPrefix(strings.TrimSpace(line), "make ")
		if target, _, _ = strings.Cut(target, " "); is && !strings.Contains(string(makefile), "\n"+target+":") {
			t.Errorf("the Makefile has no target %q", target)
		}
	}
}
