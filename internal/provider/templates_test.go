package provider

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"leasehold/internal/client/vaulttest"
)

// templated is an object whose file a template makes.
func templated(name, text string) string {
	return fmt.Sprintf("- {objectName: %q, template: %q}\n", name, text)
}

const connection = `postgres://{{ with secret "database/creds/app" }}{{ .Data.username }}:{{ .Data.password }}{{ end }}@db/app`

// since returns the requests since there were so many.
func (b *bench) since(before int) []string { return b.vault.Requests()[before:] }

func TestPollsOfATemplateAreQuiet(t *testing.T) {
	b := newBench(t)
	pod := b.mountedPod(t, "app-0", "")
	objects := templated("app.conf", connection) +
		templated("all", `{{ range secrets "kv" }}{{ . }} {{ with secret (printf "kv/%s" .) }}{{ .Data.username }}{{ end }}{{ end }}`) +
		templated("when", `{{ timestamp }} {{ with secret "kv/app" }}{{ timestamp "unix" }}{{ end }}`) +
		templated("short", `{{ with secret "secret/app" }}{{ .Data.data.username }}{{ end }}`) +
		templated("text", "of nothing")
	first := pod.mustMount(t, objects)
	pod.shows(t, first.GetFiles())
	users := b.vault.Users()
	if len(users) != 1 || !strings.HasPrefix(content(first, "app.conf"), "postgres://"+users[0]+":") {
		t.Errorf("users %q, want the one in the file alone", users)
	}
	for name, want := range map[string]string{"all": "app app", "short": "app", "text": "of nothing"} {
		if got := content(first, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	before, requests := tree(t, pod.target), len(b.vault.Requests())
	for range 100 {
		if again := pod.mustMount(t, objects); !equal(first, again) {
			t.Fatal("the answer changed though nothing did")
		}
	}
	if err := pod.refill(t, objects); err != nil {
		t.Error(err)
	}
	if now := tree(t, pod.target); !maps.Equal(now, before) {
		t.Error("the volume changed though nothing did")
	}
	if asked := b.since(requests); len(asked) > 0 {
		t.Errorf("polls asked Vault for %q, want nothing", asked)
	}
}

// However an object comes to a source, what is read once is one user, and one certificate.
func TestTemplatesShareTheSourcesOfOtherObjects(t *testing.T) {
	b := newBench(t)
	pod := b.pod("app-0")
	const issue = `{{ with secret "pki/issue/app" "common_name=a.example.com" }}{{ .Data.certificate }}{{ end }}`
	objects := userAndPassword + templated("app.conf", connection) + templated("again", connection) + `
- {objectName: dot, secretPath: database/creds/app, template: "{{ .Data.username }}:{{ .Data.password }}"}
- {objectName: tls.crt, secretPath: pki/issue/app, method: PUT, secretArgs: {common_name: a.example.com}, secretKey: certificate}
` + templated("tls.pem", issue)
	first := pod.mustMount(t, objects)
	for _, source := range []string{"GET " + readUser, "PUT pki/issue/app"} {
		method, path, _ := strings.Cut(source, " ")
		if n := b.vault.Count(method, path); n != 1 {
			t.Errorf("%s was asked for %d times, want once", source, n)
		}
	}
	both := content(first, "user") + ":" + content(first, "password")
	for name, want := range map[string]string{
		"app.conf": "postgres://" + both + "@db/app", "again": "postgres://" + both + "@db/app", "dot": both, "tls.pem": content(first, "tls.crt"),
	} {
		if got := content(first, name); got != want {
			t.Errorf("%s belongs to another user or certificate than the other files", name)
		}
	}
	// The object that named the source is taken away, and the user stays.
	requests := len(b.vault.Requests())
	if again := pod.mustMount(t, userAndPassword+templated("app.conf", connection)); content(again, "app.conf") != content(first, "app.conf") {
		t.Error("the user changed because other objects went")
	}
	if asked := b.since(requests); len(asked) > 0 {
		t.Errorf("asked Vault for %q, want nothing", asked)
	}
}

// What they share is replaced for both of them by one read, and nothing is due then.
func TestSharedSourceIsReplacedOnce(t *testing.T) {
	b := newBench(t)
	pod := b.mountedPod(t, "app-0", "")
	pod.parameters = map[string]string{"refresh": "1s"}
	pod.mustMount(t, "- {objectName: name, secretPath: kv/app, secretKey: username}\n"+
		templated("greeting", `Hello, {{ with secret "kv/app" }}{{ .Data.username }}{{ end }}`))
	if asked := b.since(0); len(asked) != 2 {
		t.Errorf("asked Vault for %q, want a login and one reading of what both files are made of", asked)
	}
	b.vault.Write("kv/app", vaulttest.Data{"username": "changed"})
	select {
	case outcome := <-b.changed:
		if outcome != "ok" {
			t.Errorf("replaced: %s, want ok", outcome)
		}
	case <-time.After(patience):
		t.Fatal("nothing was replaced")
	}
	if name, greeting := pod.read(t, "name"), pod.read(t, "greeting"); name != "changed" || greeting != "Hello, changed" {
		t.Errorf("the files hold %q and %q, want both to have changed", name, greeting)
	}
}

// A class is edited under a running pod: new bytes of what there is, without a request.
func TestEditedTemplateIsWrittenFromMemory(t *testing.T) {
	b := newBench(t)
	pod := b.mountedPod(t, "app-0", "")
	first := pod.mustMount(t, templated("user", connection))
	requests := len(b.vault.Requests())
	second := pod.mustMount(t, templated("user", connection+"?sslmode=verify-full"))
	pod.shows(t, second.GetFiles())
	if got, want := content(second, "user"), content(first, "user")+"?sslmode=verify-full"; got != want {
		t.Error("the file is not what the new template makes of the same user")
	}
	if userVersion(first) == userVersion(second) {
		t.Error("the version stayed though the bytes changed")
	}
	if third := pod.mustMount(t, templated("user", connection)); !equal(first, third) {
		t.Error("the first template makes another answer than before")
	}
	if asked := b.since(requests); len(asked) > 0 {
		t.Errorf("asked Vault for %q, want nothing", asked)
	}
	// One that cannot be used changes nothing.
	before := tree(t, pod.target)
	for _, wrong := range []string{"{{ .Data", "{{ nosuchfunction }}", `{{ (secret "database/creds/app").Data.username.deeper.still }}`} {
		if _, err := pod.mount(t.Context(), templated("user", wrong)); err == nil {
			t.Errorf("%s: was mounted", wrong)
		}
	}
	if now := tree(t, pod.target); !maps.Equal(now, before) {
		t.Error("a template that cannot be used changed the volume")
	}
	if asked := b.since(requests); len(asked) > 0 {
		t.Errorf("asked Vault for %q, want nothing", asked)
	}
}

// With rotation off, the template decides about the bytes all the same, and what it never asked for is read.
func TestEditedTemplateOfAFrozenVolume(t *testing.T) {
	b := newBench(t)
	pod := b.mountedPod(t, "app-0", "")
	pod.parameters = map[string]string{"rotation": "off"}
	first := pod.mustMount(t, templated("user", connection))
	requests := len(b.vault.Requests())
	second := pod.mustMount(t, templated("user", connection+`{{ with secret "kv/app" }}#{{ .Data.username }}{{ end }}`))
	pod.shows(t, second.GetFiles())
	if got, want := content(second, "user"), content(first, "user")+"#app"; got != want {
		t.Error("the file is not what the new template makes of the same user")
	}
	if asked := b.since(requests); !slices.Equal(asked, []string{"GET kv/app"}) {
		t.Errorf("asked Vault for %q, want the new one alone", asked)
	}
}

func TestFailuresOfTemplatesSayWhatHelps(t *testing.T) {
	for name, row := range map[string]struct {
		text   string
		code   codes.Code
		says   []string
		silent string
	}{
		"no template":         {text: `{{ with secret "kv/app"`, code: codes.InvalidArgument, says: []string{"app.conf"}},
		"an unknown function": {text: `{{ nosuchfunction }}`, code: codes.InvalidArgument, says: []string{"app.conf", "nosuchfunction"}},
		"one that is not had": {text: `{{ file "/etc/shadow" }}`, code: codes.InvalidArgument, says: []string{"app.conf", "file"}},
		"a value without fields": {
			text: `{{ (secret "kv/app").Data.username.deeper.still }}`, code: codes.FailedPrecondition, says: []string{`object "app.conf"`},
		},
		"a policy says no to a read": {
			text: `{{ with secret "sys/mounts" }}{{ . }}{{ end }}`, code: codes.PermissionDenied,
			says: []string{`object "app.conf"`, `"sys/mounts"`, `Vault role "app" must allow "read"`},
		},
		"a policy says no to a list": {
			text: `{{ range secrets "database/roles" }}{{ . }}{{ end }}`, code: codes.PermissionDenied,
			says: []string{`object "app.conf"`, `"database/roles"`, `Vault role "app" must allow "list"`},
		},
		"a policy says no to a write": {
			text: `{{ with secret "kv/app" "a=b" }}{{ . }}{{ end }}`, code: codes.PermissionDenied,
			says: []string{`object "app.conf"`, `"kv/app"`, `Vault role "app" must allow "update"`},
		},
		"nothing there": {
			text: `{{ with secret "kv/none" }}{{ . }}{{ end }}`, code: codes.NotFound,
			says: []string{`object "app.conf"`, `"kv/none"`, "check the path in the template"}, silent: "data/",
		},
		"nothing there in version 2": {
			text: `{{ with secret "secret/none" }}{{ . }}{{ end }}`, code: codes.NotFound,
			says: []string{`object "app.conf"`, `"secret/data/none"`, "check the path in the template"}, silent: "secretPath",
		},
		"an endless loop": {
			text: `{{ range loop 9223372036854775807 }}` + strings.Repeat("x", 1<<10) + `{{ end }}`, code: codes.FailedPrecondition,
			says: []string{`object "app.conf"`, "1 MiB"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			_, err := b.pod("app-0").mount(t.Context(), templated("app.conf", row.text))
			if code := status.Code(err); code != row.code {
				t.Errorf("code %v, want %v: %v", code, row.code, err)
			}
			for _, text := range append(row.says, "shop/app-0") {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("message %q lacks %q", err, text)
				}
			}
			if row.silent != "" && strings.Contains(err.Error(), row.silent) {
				t.Errorf("message %q says %q, which does not apply", err, row.silent)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("message %q has more than one line", err)
			}
			b.pod("app-1").mustMount(t, templated("app.conf", connection)) // the provider lives on
		})
	}
}

// That the templates of others need much at the moment is not the fault of whoever comes then, and passes.
func TestTemplatesOfOthersAreInTheWay(t *testing.T) {
	b := newBench(t)
	greedy := templated("app.conf", `{{ range 31 }}{{ $x := sprig_repeat 1000000 "x" }}{{ end }}{{ (secret "kv/app").Data.username }}`)
	const others = 2
	asked, answers := make(chan struct{}, others), make(chan struct{})
	b.vault.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1/kv/app" {
			asked <- struct{}{}
			<-answers
		}
		return false
	})
	var group sync.WaitGroup
	for i := range others {
		group.Go(func() {
			if _, err := b.pod(fmt.Sprintf("app-%d", i)).mount(t.Context(), greedy); err != nil {
				t.Error(err)
			}
		})
	}
	for range others {
		<-asked
	}
	late := b.pod("late")
	_, err := late.mount(t.Context(), greedy)
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "tried again later") {
		t.Errorf("got %v, want Internal and that it is tried again", err)
	}
	b.vault.Intercept(nil)
	close(answers)
	group.Wait()
	late.mustMount(t, greedy)
}

// What Vault does not answer fails the template, and its next try goes on from what the first one has had.
func TestTemplateGoesOnWhereItFailed(t *testing.T) {
	b := newBench(t)
	pod := b.pod("app-0")
	b.vault.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/kv/app" {
			return false
		}
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte(`{"errors":["no disk"]}`))
		return true
	})
	objects := templated("app.conf", connection+`{{ with secret "kv/app" }}#{{ .Data.username }}{{ end }}`)
	_, err := pod.mount(t.Context(), objects)
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "starts by itself") {
		t.Fatalf("got %v, want Internal and that it passes", err)
	}
	b.vault.Intercept(nil)
	b.vault.Write("kv/app", vaulttest.Data{"username": "changed"})
	if got := content(pod.mustMount(t, objects), "app.conf"); !strings.HasSuffix(got, "#changed") {
		t.Error("the file lacks what was read at last")
	}
	if users := b.vault.Count("GET", readUser); users != 1 {
		t.Errorf("%d users were made, want 1", users)
	}
}
