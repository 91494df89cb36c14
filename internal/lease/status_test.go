package lease

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"leasehold/internal/client/vaulttest"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

func TestStatus(t *testing.T) {
	bubble(t, func(w *world) {
		w.otherRole(nil)
		w.vault.Write("pki/roles/app", vaulttest.Data{"allowed_domains": "example.com", "generate_lease": true, "max_ttl": "2h"})
		issue := spec.Source{Method: http.MethodPut, Path: "pki/issue/app", Args: `{"common_name":"a.example.com"}`}
		w.mounted("b", of(keySource))
		old := w.mounted("a", w.as("other"))
		h := w.mounted("a", of(userSource, keySource, staticSource, issue))
		w.mounted("c")
		w.volume("c").end(time.Now())
		time.Sleep(50 * time.Minute) // and nobody does anything

		all := w.keeper.Status()
		if len(all) != 3 || all[0].Pod != "a" || all[1].Pod != "b" || all[2].Pod != "c" {
			w.t.Fatalf("got %d volumes, want a, b and c in this order", len(all))
		}
		a := all[0]
		if a.Namespace != "shop" || a.UID != "uid-of-a" || a.Target != "/pods/a" || a.Vault != w.vault.Address() || a.Role != "app" || a.Ended {
			w.t.Errorf("got %+v", a)
		}
		start := time.Now().Add(-50 * time.Minute)
		got := ""
		for _, i := range a.Items {
			ends := "never"
			if !i.End.IsZero() {
				ends = fmt.Sprint(i.End.Sub(start))
			}
			got += fmt.Sprintln(i.Kind, i.Source, i.State, ends, i.Next)
		}
		want := fmt.Sprintln("token", h.session.Accessor(), StateHeld, "1h0m0s", "renew") +
			fmt.Sprintln("lease", userPath, StateHeld, "1h0m0s", "renew") +
			fmt.Sprintln("static", staticSource.Path, StateHeld, "1h0m1s", "replace") +
			fmt.Sprintln("secret", keySource.Path, StateDue, "never", "replace") +
			fmt.Sprintln("lease", issue.Path, StateHeld, "1h0m0s", "replace") + // with its token
			fmt.Sprintln("token", old.session.Accessor(), StateUnwanted, "1h0m0s", "revoke")
		if got != want {
			w.t.Errorf("got items\n%swant\n%s", got, want)
		}
		if c := all[2]; !c.Ended || len(c.Items) != 1 || c.Items[0].State != StateUnwanted {
			w.t.Errorf("got %+v, want an ended volume with a token to be given back", c)
		}
		time.Sleep(time.Hour)
		for _, i := range w.keeper.Status()[0].Items {
			if i.Kind == "lease" && i.State != StateOver {
				w.t.Errorf("%s is %s after its token's end, want %s", i.Source, i.State, StateOver)
			}
		}
	})
}

// The newest error is shown, of whatever it was.
func TestStatusError(t *testing.T) {
	w := newWorld(t)
	w.mounted("a")
	v := w.volume("a")
	doomed := &doom{trouble: trouble{fmt.Errorf("of giving back"), began.Add(1)}}
	v.unwanted[newHolding(v, v.shown.session)] = doomed
	v.shown.renewal.trouble = trouble{fmt.Errorf("of renewing the token"), began.Add(2)}
	v.shown.grants[userSource].renewal.trouble = trouble{fmt.Errorf("of renewing the lease"), began.Add(3)}
	v.refilling.trouble = trouble{fmt.Errorf("of replacing"), began.Add(4)}
	want := func(text string, after time.Duration) {
		t.Helper()
		s := w.keeper.Status()[0]
		if s.Error != text || text != "" && !s.ErrorAt.Equal(began.Add(after)) {
			t.Errorf("got %q at %v, want %q", s.Error, s.ErrorAt, text)
		}
	}
	want("of replacing", 4)
	v.refilling.trouble = trouble{}
	want("of renewing the lease", 3)
	v.shown.grants[userSource].renewal.trouble = trouble{}
	want("of renewing the token", 2)
	v.shown.renewal.trouble = trouble{}
	want("of giving back", 1)
	doomed.trouble = trouble{}
	want("", 0)
}

// Status, log and events say nothing that is secret, whatever happens.
func TestNothingSecretIsTold(t *testing.T) {
	bubble(t, func(w *world) {
		w.newToken(4 * time.Hour)
		w.users("10m", "20m")
		w.tokens(vaulttest.Data{"token_ttl": "1h", "token_max_ttl": "3h"})
		key := redact.New("-----BEGIN PRIVATE KEY-----")
		private := func(m *spec.Mount) { m.Class.Vault.TLS.CACert.Path = "/none"; m.Class.Vault.TLS.Key = key }
		w.restart(inMemory(w.t))
		w.run()
		secrets := []string{w.jwt.Reveal(), key.Reveal()}
		told := ""
		tell := func() {
			text, err := json.Marshal(w.keeper.Status())
			if err != nil {
				w.t.Fatal(err)
			}
			told += string(text)
			secrets = append(secrets, w.vault.Tokens()...)
			var files struct{ Password string }
			if err := json.Unmarshal([]byte(w.shows("a")), &files); err != nil || files.Password == "" {
				w.t.Fatalf("no password: %v", err)
			}
			secrets = append(secrets, files.Password)
		}
		w.mounted("a")
		if _, err := w.mount("b", private); err == nil {
			w.t.Fatal("got no error")
		}
		for range 50 {
			time.Sleep(10 * time.Minute)
			tell()
			w.vault.Seal(!w.network.down.Load() && time.Now().Minute() == 20)
		}
		w.ends("a")
		time.Sleep(time.Minute)
		told += w.log.String() + strings.Join(w.pods.takeEvents(), "\n")
		if !strings.Contains(told, "CredentialsEnd") || !strings.Contains(told, "given back") {
			w.t.Error("hardly anything happened")
		}
		for _, secret := range secrets {
			if strings.Contains(told, secret) {
				w.t.Error("a secret is told")
			}
		}
	})
}

// When only a part could be read anew, the files go on showing the old user: its end is what is told.
func TestStatusTellsTheEndOfWhatTheFilesShow(t *testing.T) {
	bubble(t, func(w *world) {
		w.users("10m", "20m")
		w.run()
		w.mounted("a", of(userSource, keySource))
		user := w.shows("a")
		w.answer("GET", keySource.Path, http.StatusForbidden, "")
		alive := func() bool {
			return slices.ContainsFunc(w.vault.Users(), func(u string) bool { return strings.Contains(user, u) })
		}
		for alive() {
			time.Sleep(10 * time.Second)
		}
		time.Sleep(10 * time.Second)
		items := w.keeper.Status()[0].Items
		if !slices.ContainsFunc(items, func(i Item) bool { return i.Source == userPath && i.State == StateOver }) {
			w.t.Errorf("the user in the files has gone, and the status says nothing of it: %+v", items)
		}
		if events := fmt.Sprint(w.pods.takeEvents()); !strings.Contains(events, "T00:20:0") && !strings.Contains(events, "T00:19:5") {
			w.t.Errorf("got events %s, want one that tells the end of that user, at 00:20", events)
		}
	})
}
