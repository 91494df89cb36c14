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
	brief := documents(t, "checkout.yaml")
	if len(brief) != 2 {
		t.Fatalf("checkout.yaml: %d objects, want the class and the pod", len(brief))
	}
	checkBrief(t, brief[0], brief[1], accounts)
	args, err := yaml.Marshal(at(t, cart, "containers", "args"))
	if err != nil || !strings.Contains(string(args), facts.Question) {
		t.Errorf("the pods do not ask %q: %s, %v", facts.Question, args, err)
	}
}

// checkBrief is for the pod whose credentials end within seconds, and its class.
func checkBrief(t *testing.T, class, pod map[string]any, accounts map[any]bool) {
	t.Helper()
	if role := at(t, class, "spec", "parameters", "roleName"); role != brief {
		t.Errorf("the class names the role %q, want %q", role, brief)
	}
	objects, _ := at(t, class, "spec", "parameters", "objects").(string)
	for _, want := range []string{"objectName: db/username\n  secretPath: " + briefPath, "objectName: db/password\n  secretPath: " + briefPath} {
		if !strings.Contains(objects, want+"\n") {
			t.Errorf("the class reads %q, want %q in it", objects, want)
		}
	}
	if len(brief) > 8 {
		t.Errorf("Vault would cut %q in the names of users", brief)
	}
	if life, most := int(briefLife.Seconds()), int(briefMost.Seconds()); life < 5 || life >= most || most >= 2*life {
		t.Errorf("leases of %d s and at most %d s: want the first renewal to be the last, and time to tell it", life, most)
	}
	spec := at(t, pod, "spec")
	if account := at(t, spec, "serviceAccountName"); account != "checkout" || !accounts[account] {
		t.Errorf("the pod has the service account %q, want checkout, and that in accounts.yaml", account)
	}
	if got, want := at(t, spec, "volumes", "csi", "volumeAttributes", "secretProviderClass"), at(t, class, "metadata", "name"); got != want {
		t.Errorf("the pod names the class %q, want %q", got, want)
	}
	// Where the client looks if nobody says otherwise, and the story too.
	if path := at(t, spec, "containers", "volumeMounts", "mountPath"); path != "/secrets" {
		t.Errorf("the volume is at %q, want /secrets", path)
	}
	if label := at(t, pod, "metadata", "labels", "app"); label != at(t, pod, "metadata", "name") {
		t.Errorf("the pod's label app is %q, want its name", label)
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

func TestStream(t *testing.T) {
	const (
		one   = `{"time":"2026-01-02T03:04:05.5Z","user":"v-a","queries":10,"failed":0,"users":1}` + "\n"
		two   = `{"time":"2026-01-02T03:04:06.5Z","user":"v-b","queries":20,"failed":0,"users":2}` + "\n"
		wrong = `{"time":"2026-01-02T03:04:06Z","user":"v-a","error":"no such user"}` + "\n"
	)
	want := stream{time.Date(2026, 1, 2, 3, 4, 6, 5e8, time.UTC), 20, 0, 2}
	if got, err := streamOf(one + two); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for log, says := range map[string]string{
		one + wrong + two:     "no such user",
		"":                    "said nothing",
		"client: EVERY is 0s": "EVERY is 0s",
	} {
		if _, err := streamOf(log); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got error %v, want one with %q", log, err, says)
		}
	}
	for name, row := range map[string]struct {
		said stream
		says string // "": it is as it should be
	}{
		"flawless":   {stream{Queries: 100, Users: 2}, ""},
		"a failure":  {stream{Queries: 100, Users: 2, Failed: 1}, "1 of 100 queries failed"},
		"one user":   {stream{Queries: 100, Users: 1}, "of 1 users"},
		"it stopped": {stream{Queries: 12, Users: 2}, "12 queries in 10s"},
	} {
		err := row.said.flawless(10 * time.Second)
		if row.says == "" && err != nil || row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)) {
			t.Errorf("%s: got error %v, want one with %q", name, err, row.says)
		}
	}
}

func TestEnding(t *testing.T) {
	at := func(second int) time.Time { return time.Unix(int64(second), 0) }
	for name, row := range map[string]struct {
		lines []string
		want  ending
	}{
		"phase first":  {[]string{"ADDED Running", "MODIFIED Running", "MODIFIED Succeeded", "MODIFIED Succeeded", "DELETED Succeeded"}, ending{over: at(2), gone: at(4)}},
		"a failure":    {[]string{"ADDED Running", "MODIFIED Failed", "DELETED Failed"}, ending{over: at(1), gone: at(2)}},
		"by force":     {[]string{"ADDED Running", "DELETED Running"}, ending{over: at(1), gone: at(1)}},
		"still there":  {[]string{"ADDED Running", "MODIFIED Running"}, ending{}},
		"only at last": {[]string{"MODIFIED Succeeded"}, ending{over: at(0)}},
	} {
		var got ending
		for i, line := range row.lines {
			if more := got.note(line, at(i)); more == strings.HasPrefix(line, "DELETED") {
				t.Errorf("%s: after %q there is more: %t", name, line, more)
			}
		}
		if got != row.want {
			t.Errorf("%s: got %+v, want %+v", name, got, row.want)
		}
	}
}

func TestEndingIsToldInOrder(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(1000 + ms)) }
	for name, row := range map[string]struct {
		end  ending
		want string
	}{
		"the user in between": {ending{at(0), at(100), at(300), at(200)}, "containers 100 ms, user 200 ms, deleted 300 ms"},
		"the user at last":    {ending{at(0), at(100), at(200), at(300)}, "containers 100 ms, deleted 200 ms, user 300 ms"},
	} {
		var got []string
		for _, cells := range row.end.rows() {
			for _, what := range []string{"containers", "deleted", "user"} {
				if strings.Contains(cells[0], what) {
					got = append(got, what+strings.TrimPrefix(cells[1], "after"))
				}
			}
		}
		if told := strings.Join(got, ", "); told != row.want {
			t.Errorf("%s: got %q, want %q", name, told, row.want)
		}
	}
}

func TestExchanged(t *testing.T) {
	two := []string{"a", "b"}
	for name, row := range map[string]struct {
		before, after []string
		well          bool
	}{
		"one for another": {two, []string{"c", "b"}, true},
		"still there":     {two, two, false},
		"not yet gone":    {two, []string{"a", "b", "c"}, false},
		"none yet":        {two, []string{"b"}, false},
		"both for others": {two, []string{"c", "d"}, false},
		"too few before":  {[]string{"a"}, []string{"a", "b"}, false},
	} {
		if err := exchanged(row.before, row.after); (err == nil) != row.well {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

func TestLines(t *testing.T) {
	var got []string
	each := func(line string) bool { got = append(got, line); return line != "b" }
	// The command would go on for ever: nobody wants more than two lines.
	if err := lines(t.Context(), "echo a; echo b; exec sleep 3600", each); err != nil || strings.Join(got, " ") != "a b" {
		t.Errorf("got %q, %v, want a and b", got, err)
	}
	if err := lines(t.Context(), "echo c; echo why >&2; exit 3", each); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("a command that fails: got error %v, want one that says why", err)
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

// The annotated pods and what the program tells of them must fit together.
func TestAnnotated(t *testing.T) {
	object := documents(t, "billing.yaml")[0]
	if got, _ := at(t, object, "spec", "replicas").(float64); got != billingPods {
		t.Errorf("there are %g replicas, want %d", got, billingPods)
	}
	annotations := at(t, object, "spec", "template", "metadata", "annotations")
	if got := at(t, annotations, "vault.hashicorp.com/role"); got != billing {
		t.Errorf("the pods name the role %q, want %q", got, billing)
	}
	if got := at(t, annotations, "vault.hashicorp.com/agent-inject-secret-db"); got != billingPath {
		t.Errorf("the pods ask for %q, want %q", got, billingPath)
	}
	if template, _ := at(t, annotations, "vault.hashicorp.com/agent-inject-template-db").(string); !strings.Contains(template, `"`+billingPath+`"`) {
		t.Errorf("the template reads another path than %s: %s", billingPath, template)
	}
	if len(billing) > 8 {
		t.Errorf("Vault would cut %q in the names of users", billing)
	}
	if billingLife >= billingMost || billingMost >= 2*billingLife {
		t.Errorf("leases of %s and at most %s: want the first renewal to be the last", billingLife, billingMost)
	}
}

func TestBills(t *testing.T) {
	pods := []string{"a", "b"}
	const one, other = "[pod/a/billing] v-1|3\n", "[pod/b/billing] v-2|3\n"
	users, err := bills(one+other, pods)
	if err != nil || users["a"] != "v-1" || users["b"] != "v-2" {
		t.Errorf("got %q, %v", users, err)
	}
	if n := others(users, map[string]string{"a": "v-1", "b": "v-3"}); n != 1 {
		t.Errorf("%d pods have another user, want 1", n)
	}
	for log, says := range map[string]string{
		one:                                   "b has said nothing",
		one + "[pod/b/billing] v-1|3\n":       "are one user",
		one + "[pod/b/billing] v-2|2\n":       "want its user and 3 orders",
		one + "[pod/b/billing] psql: error\n": "want its user and 3 orders",
	} {
		if _, err := bills(log, pods); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got error %v, want one with %q", log, err, says)
		}
	}
}

func TestAnswered(t *testing.T) {
	if n, err := answered("v-1|3\nv-2|3\n"); err != nil || n != 2 {
		t.Errorf("got %d, %v, want 2", n, err)
	}
	for log, says := range map[string]string{
		"":                              "said nothing",
		"v-1|3\npsql: error: no user\n": "psql: error: no user",
		"v-1|2\n":                       "v-1|2",
	} {
		if _, err := answered(log); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got error %v, want one with %q", log, err, says)
		}
	}
}
