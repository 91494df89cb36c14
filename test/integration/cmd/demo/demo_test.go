package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/bed/bedtest"
	"leasehold/test/integration/page"
)

func TestStory(t *testing.T) {
	var out bytes.Buffer
	s := &story{bed: bedtest.Open(t), page: page.Plain(&out)}
	if err := s.play(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	secrets, err := bed.Secrets(s.vault.AuditFile)
	if err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, s.signer.Issued()...)
	for _, l := range s.logins {
		secrets = append(secrets, l.Password)
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
		if n := strings.Count(shown, l.User); n != 3 {
			t.Errorf("the user %s is shown %d times, want 3: in the volume, in the query, in PostgreSQL's list", l.User, n)
		}
	}
	for line := range strings.Lines(shown) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > page.Width {
			t.Errorf("a line of %d columns, want %d at most: %s", n, page.Width, line)
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
	s := &story{page: page.Plain(&out)}
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

// A demo that tells the same whatever happened is none: it fails if the polls were not quiet.
func TestQuietCanFail(t *testing.T) {
	before := tally{proxy: 4, requests: 4, mounts: 2}
	after := tally{proxy: 4, requests: 4, mounts: 12}
	change := func(f func(*tally)) tally { changed := after; f(&changed); return changed }
	for name, row := range map[string]struct {
		err  error
		says string // "": it is as it should be
	}{
		"quiet":             {quiet(before, after, 10), ""},
		"a request":         {quiet(before, change(func(t *tally) { t.proxy++ }), 10), "1 requests"},
		"an untold request": {quiet(before, change(func(t *tally) { t.requests++ }), 10), "tells of 1"},
		"no polls":          {quiet(before, before, 10), "0 Mount calls"},
		"a blind proxy":     {quiet(tally{requests: 4}, tally{requests: 4, mounts: 10}, 10), "0 arrived"},
		"blind metrics":     {quiet(tally{proxy: 4}, tally{proxy: 4, mounts: 10}, 10), "told of 0"},
	} {
		switch {
		case row.says == "" && row.err != nil:
			t.Errorf("%s: got error %v, want none", name, row.err)
		case row.says != "" && (row.err == nil || !strings.Contains(row.err.Error(), row.says)):
			t.Errorf("%s: got error %v, want one with %q", name, row.err, row.says)
		}
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
