package lease

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"leasehold/internal/client/vaulttest"
	"leasehold/internal/spec"
)

// A week in the life of 2000 leases: each volume shows users that live all the time, everything is renewed before its
// end and replaced before its max TTL, and no more is asked of Vault than that takes.
func TestWeek(t *testing.T) {
	const volumes, leases = 100, 20
	bubble(t, func(w *world) {
		w.tokens(vaulttest.Data{"token_ttl": "24h", "token_max_ttl": "72h"})
		var sources []spec.Source
		for i := range leases {
			role := fmt.Sprint("app", i)
			w.vault.Write("database/roles/"+role, vaulttest.Data{"default_ttl": "24h", "max_ttl": "96h"})
			sources = append(sources, spec.Source{Method: http.MethodGet, Path: "database/creds/" + role})
		}
		w.run()
		for i := range volumes {
			w.mounted(fmt.Sprint("pod", i), of(sources...))
		}
		for range 7 * 8 {
			time.Sleep(3 * time.Hour)
			users := w.vault.Users()
			alive := map[string]bool{}
			for _, u := range users {
				alive[u] = true
			}
			for i := range volumes {
				for line := range strings.Lines(w.shows(fmt.Sprint("pod", i))) {
					_, after, _ := strings.Cut(line, `"username":"`)
					user, _, _ := strings.Cut(after, `"`)
					if !alive[user] {
						w.t.Fatalf("pod%d shows user %q, who is gone", i, user)
					}
				}
			}
		}
		got := w.take()
		if slices.ContainsFunc(got, func(o string) bool { return !strings.HasSuffix(o, " ok") && o != "released revoked" }) {
			w.t.Error("something went wrong, though nothing was wrong")
		}
		// A token lives for some 64 h of its 72, is renewed each 15 to 16 h, and its leases with it; 168 h make two or
		// three sessions of each volume.
		logins, reads := w.vault.Count("POST", loginPath), w.vault.Count("GET", sources[0].Path)
		if logins < 3*volumes || logins > 4*volumes || reads != logins {
			w.t.Errorf("got %d logins and %d reads of one source, want 3 or 4 of each for each of %d volumes", logins, reads, volumes)
		}
		if n := count(got, "renewed lease ok"); n < volumes*leases*7 || n > volumes*leases*12 {
			w.t.Errorf("got %d renewals of %d leases in a week, want one in some 16 h", n, volumes*leases)
		}
		w.wantLeft(volumes, volumes)
		if n := len(w.vault.Users()); n != volumes*leases {
			w.t.Errorf("got %d users, want %d", n, volumes*leases)
		}
		w.wantNoEvent()
	})
}
