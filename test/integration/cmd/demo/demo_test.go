package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/bed/bedtest"
)

func TestStory(t *testing.T) {
	var out bytes.Buffer
	s := &story{bed: bedtest.Open(t), page: &page{out: &out}}
	if err := s.play(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	secrets, err := bed.Secrets(s.vault.AuditFile)
	if err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, s.signer.Issued()...)
	for _, l := range s.logins {
		secrets = append(secrets, l.password)
	}
	if err := s.end(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if err := s.epilogue(time.Second); err != nil {
		t.Fatal(err)
	}

	shown := out.String()
	for _, pattern := range []string{
		`(?m)^ 1  Start PostgreSQL, Vault and the provider {20,}\d.* (s|ms)$`,
		`PostgreSQL \d+\.\d+ +127\.0\.0\.1:\d+`,
		`Vault \d+\.\d+\.\d+ +127\.0\.0\.1:\d+`,
		`who may log in +system:serviceaccount:shop:cart\n`,
		`path "database/creds/db-app" { capabilities = \["read"\] }`,
		`apiVersion: secrets-store.csi.x-k8s.io/v1\n`,
		`db-password +-r--r----- +\d+ bytes +••••••••\n`,
		`db-user +-rw-r--r-- +\d+ bytes +v-kubernet-db-app-\S+\n`,
		`shop/cart-0 +v-kubernet-db-app-\S+ +3 `,
		`shop/cart-1 +v-kubernet-db-app-\S+ +3 `,
		`✓ One user and one lease for each pod`,
		`requests to Vault +0 `,
		`new users +0 `,
		`time of one poll +[\d.]+ (µs|ms) `,
		`InvalidArgument: pod shop/cart-2: 2 faults: `,
		`unknown key\s+"secretkye": did you mean secretKey\?`,
		`PermissionDenied: pod shop/report-0: `,
		`claim "sub" does not match any associated bound\s+claim values`,
		`✓ There were \d+ secrets. None is`,
		`(?m)^11  Take everything down `,
		`All of that took `,
	} {
		if !regexp.MustCompile(pattern).MatchString(shown) {
			t.Errorf("nothing matches %q", pattern)
		}
	}
	for _, l := range s.logins {
		if n := strings.Count(shown, l.user); n != 3 {
			t.Errorf("the user %s is shown %d times, want 3: in the volume, in the query, in PostgreSQL's list", l.user, n)
		}
	}
	for line := range strings.Lines(shown) {
		if n := length(strings.TrimSuffix(line, "\n")); n > width {
			t.Errorf("a line of %d columns, want %d at most: %s", n, width, line)
		}
	}
	if strings.ContainsAny(shown, "\x1b\r") {
		t.Error("there are escape sequences on a page that is no terminal")
	}
	if len(secrets) < 6 {
		t.Errorf("the run had %d secrets, want at least two tokens, two passwords and two JWTs", len(secrets))
	}
	for _, leak := range bed.Leaks(secrets, map[string][]byte{"shown": []byte(shown)}) {
		t.Errorf("shown: %s", leak)
	}
	if t.Failed() {
		t.Log(shown)
	}
}

func TestEpilogueNamesFilesThatExist(t *testing.T) {
	var out bytes.Buffer
	s := &story{page: &page{out: &out}}
	if err := s.epilogue(time.Second); err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?m)^\s+(\S+\.md) `).FindAllStringSubmatch(out.String(), -1)
	if len(named) < 4 {
		t.Errorf("%d files are named, want the README and three of docs", len(named))
	}
	for _, name := range named {
		if _, err := os.Stat(filepath.Join("../../../..", name[1])); err != nil {
			t.Error(err)
		}
	}
}

// A demo that tells the same whatever happened is none: every fact can fail it.
func TestFactsCanFail(t *testing.T) {
	a, b := login{"v-a", "1"}, login{"v-b", "2"}
	before := tally{proxy: 4, requests: 4, mounts: 2}
	after := tally{proxy: 4, requests: 4, mounts: 12}
	change := func(f func(*tally)) tally { changed := after; f(&changed); return changed }
	for name, row := range map[string]struct {
		err  error
		says string // "": it is as it should be
	}{
		"two logins":        {distinct([]login{a, b}), ""},
		"same user":         {distinct([]login{a, {"v-a", "2"}}), "same user"},
		"same password":     {distinct([]login{a, {"v-b", "1"}}), "same password"},
		"no password":       {distinct([]login{a, {"v-b", ""}}), "no password"},
		"no user":           {distinct([]login{{"", "1"}, b}), "no user"},
		"the users":         {exactly("users", []string{"y", "x"}, []string{"x", "y"}), ""},
		"one more":          {exactly("users", []string{"x", "y", "z"}, []string{"x", "y"}), "there are 3"},
		"another":           {exactly("users", []string{"x", "z"}, []string{"x", "y"}), "z"},
		"quiet":             {quiet(before, after, 10), ""},
		"a request":         {quiet(before, change(func(t *tally) { t.proxy++ }), 10), "1 requests"},
		"an untold request": {quiet(before, change(func(t *tally) { t.requests++ }), 10), "tells of 1"},
		"no polls":          {quiet(before, before, 10), "0 Mount calls"},
		"a blind proxy":     {quiet(tally{requests: 4}, tally{requests: 4, mounts: 10}, 10), "0 arrived"},
		"blind metrics":     {quiet(tally{proxy: 4}, tally{proxy: 4, mounts: 10}, 10), "told of 0"},
		"the cure":          {mentions("did you mean x?", "x"), ""},
		"no cure":           {mentions("no", "x"), `does not say "x"`},
	} {
		switch {
		case row.says == "" && row.err != nil:
			t.Errorf("%s: got error %v, want none", name, row.err)
		case row.says != "" && (row.err == nil || !strings.Contains(row.err.Error(), row.says)):
			t.Errorf("%s: got error %v, want one with %q", name, row.err, row.says)
		}
		if row.err != nil && strings.Contains(row.err.Error(), "hvs.") {
			t.Errorf("%s: a secret in %v", name, row.err)
		}
	}
}

func TestFigure(t *testing.T) {
	const metrics = "# TYPE a histogram\n" + `a_count{x="1"} 3` + "\n" + `a_count{x="1 2"} 4` + "\nab_count 9\na_count_x 9\nb 0.5\n"
	for name, want := range map[string]float64{"a_count": 7, "b": 0.5} {
		if got, err := figure(metrics, name); err != nil || got != want {
			t.Errorf("%s: got %g, %v, want %g", name, got, err, want)
		}
	}
	if got, err := figure(metrics, "c"); err == nil {
		t.Errorf("a metric that is not there: got %g, want an error", got)
	}
}

func TestClass(t *testing.T) {
	for from, to := range map[string]string{
		"  provider: vault":    "  provider: other",
		"  parameters:":        "  paramters:",
		"    roleName: db-app": "   - roleName",
	} {
		text, err := apply(classYAML, edit{from, to})
		if err != nil {
			t.Error(err)
		}
		if _, err := parseClass(text); err == nil {
			t.Errorf("the class with %q: got no error", to)
		}
	}
	if _, err := apply(classYAML, edit{"no such line", ""}); err == nil {
		t.Error("an edit of a line that is not there: got no error")
	}
}

func TestStepThatFails(t *testing.T) {
	var out bytes.Buffer
	p := &page{out: &out}
	cause := errors.New("broken")
	err := p.step(t.Context(), "Try", "Why not.", func(_ context.Context, text *sheet) error {
		text.line("so far")
		return cause
	})
	if !errors.Is(err, cause) || err.Error() != `step 1, "Try": broken` {
		t.Errorf("got error %v", err)
	}
	if got := out.String(); !strings.Contains(got, "failed\n") || !strings.Contains(got, "so far") {
		t.Errorf("got %q, want what there was and that it failed", got)
	}
}

func TestTerminal(t *testing.T) {
	var out bytes.Buffer
	p := &page{out: &out, live: true, colour: true}
	err := p.step(t.Context(), "Try", "Why not.", func(_ context.Context, text *sheet) error {
		text.now(strings.Repeat("long ", 100))
		text.proved("It works.")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	before, final, _ := cut(out.String(), eraseLine)
	if !strings.Contains(before, "Try … long") || strings.Contains(before, "\n") {
		t.Errorf("while it works: got %q, want one line", before)
	}
	if want := bold + " 1  Try" + plain; !strings.HasPrefix(final, want) {
		t.Errorf("in the end: got %q, want it to begin with %q", final, want)
	}
	if !strings.Contains(final, green+"✓"+plain+" It works.\n") {
		t.Errorf("in the end: got %q, want a green sign", final)
	}
}

// cut slices text around the last separator.
func cut(text, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(text, separator); i >= 0 {
		return text[:i], text[i+len(separator):], true
	}
	return "", text, false
}

func TestFullDiskFailsTheDemo(t *testing.T) {
	p := &page{out: fullDisk{}}
	if err := p.step(t.Context(), "Try", "Why not.", func(context.Context, *sheet) error { return nil }); err == nil {
		t.Error("nothing could be written: got no error")
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }
