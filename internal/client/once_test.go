package client_test

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"leasehold/internal/client"
)

// Vault's library asks again after answers like these, unless it is told not to. Vault may have made a user all the
// same.
func TestReadIsSentOnceWhateverTheAnswer(t *testing.T) {
	for _, status := range []int{412, 429, 500, 502, 503, 504} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel() // the library would wait a second or two
			var reads atomic.Int32
			s := serve(t, stub(func(w http.ResponseWriter, r *http.Request) {
				reads.Add(1)
				answering(status, "application/json", `{"errors":["trouble"]}`)(w, r)
			}))
			if _, err := open(t, newPool(t, client.Config{}), vaultAt(s.URL)).Read(t.Context(), get("x")); err == nil {
				t.Error("got no error")
			}
			if got := reads.Load(); got != 1 {
				t.Errorf("got the request %d times, want once", got)
			}
		})
	}
}

// Whatever stands in Vault's place may show anybody's data. Only Vault's own errors are quoted.
func TestErrorsHoldNoBodyThatIsNotVaults(t *testing.T) {
	const neighbour = "the neighbour's password"
	for _, status := range []int{200, 400, 403, 404, 429, 500, 502} {
		for mime, body := range map[string]string{
			"text/html": "<p>" + neighbour + "</p>", "application/json": `{"message":"` + neighbour + `"}`, "text/plain": neighbour,
		} {
			s := serve(t, stub(answering(status, mime, body)))
			_, err := open(t, newPool(t, client.Config{}), vaultAt(s.URL)).Read(t.Context(), get("x"))
			e, ok := errors.AsType[*client.Error](err)
			if !ok {
				t.Fatalf("%d %s: got %v, want a *client.Error", status, mime, err)
			}
			for _, text := range append(e.Reasons, e.Error()) {
				if strings.Contains(text, "neighbour") {
					t.Errorf("%d %s: got the body in the error: %s", status, mime, text)
				}
			}
		}
	}
}
