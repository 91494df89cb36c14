package bed_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/bed/bedtest"
)

// behind is a stand-in for Vault that counts what reaches it.
func behind(t *testing.T) (*bed.Trouble, *atomic.Int64) {
	t.Helper()
	var reached atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		reached.Add(1)
		w.Header().Set("X-Behind", "yes")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, r.Method+" "+r.URL.RequestURI()+" "+string(body))
	}))
	t.Cleanup(server.Close)
	trouble, err := bedtest.Open(t).StartTrouble(server.URL)
	check(t, "trouble", err)
	return trouble, &reached
}

// post sends "the body" to a path and returns the answer's status, header and body.
func post(t *testing.T, trouble *bed.Trouble, path string) (int, http.Header, string, error) {
	t.Helper()
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, trouble.Address+"/v1/"+path, strings.NewReader("the body"))
	check(t, "request", err)
	answer, err := client.Do(request)
	if err != nil {
		return 0, nil, "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header, string(body), err
}

func TestTroubleBehaves(t *testing.T) {
	trouble, reached := behind(t)
	const lost = -1 // an answer that does not come, or not whole
	for _, row := range []struct {
		name      string
		behaviour bed.Behaviour
		status    int
		body      string
		header    string // "Name: value"
		reached   int64
	}{
		{"pass", bed.Pass, 201, "POST /v1/a/b?c=d the body", "X-Behind: yes", 1},
		{"slow", bed.Slow(time.Millisecond), 201, "POST /v1/a/b?c=d the body", "X-Behind: yes", 1},
		{"refuse", bed.Refuse, lost, "", "", 0},
		{"lose the answer", bed.LoseAnswer, lost, "", "", 1},
		{"cut the answer", bed.CutAnswer, lost, "", "", 1},
		{"nonsense", bed.Nonsense, 200, "the body", "Content-Type: text/html", 0},
		{"too many", bed.TooMany(7 * time.Second), 429, "quota exceeded", "Retry-After: 7", 0},
		{"bad gateway", bed.BadGateway, 502, "502 Bad Gateway", "", 0},
		{"redirect", bed.Redirect("http://elsewhere:1"), 307, "", "Location: http://elsewhere:1/v1/a/b?c=d", 0},
	} {
		trouble.Reset()
		reached.Store(0)
		trouble.Set(row.behaviour)
		status, header, body, err := post(t, trouble, "a/b?c=d")
		if err != nil {
			status = lost
		}
		if status != row.status || !strings.Contains(body, row.body) {
			t.Errorf("%s: got status %d (%v), body %q, want %d and %q", row.name, status, err, body, row.status, row.body)
		}
		if name, want, _ := strings.Cut(row.header, ": "); name != "" && header.Get(name) != want {
			t.Errorf("%s: got %s %q, want %q", row.name, name, header.Get(name), want)
		}
		if got := reached.Load(); got != row.reached {
			t.Errorf("%s: got %d requests behind, want %d", row.name, got, row.reached)
		}
		if got := trouble.Count("POST", "a/b"); got != 1 || trouble.Total() != 1 {
			t.Errorf("%s: got count %d of %d, want 1 of 1", row.name, got, trouble.Total())
		}
	}
}

func TestTroubleOnOnePath(t *testing.T) {
	trouble, _ := behind(t)
	trouble.SetPath("bad", bed.BadGateway)
	for path, want := range map[string]int{"bad": 502, "good": 201} {
		if got, _, _, err := post(t, trouble, path); err != nil || got != want {
			t.Errorf("%s: got status %d, %v, want %d", path, got, err, want)
		}
	}
	trouble.SetPath("bad", nil)
	if got, _, _, err := post(t, trouble, "bad"); err != nil || got != 201 {
		t.Errorf("mended: got status %d, %v, want 201", got, err)
	}
}

func TestTroubleHoldsRequests(t *testing.T) {
	for _, row := range []struct {
		name string
		gate func(*bed.Trouble, string) *bed.Gate
		held int64 // requests behind while the gate is closed
	}{
		{"before", (*bed.Trouble).Block, 0},
		{"after", (*bed.Trouble).BlockAnswer, 1},
	} {
		trouble, reached := behind(t)
		gate := row.gate(trouble, "login")
		done := make(chan error)
		go func() {
			status, _, body, err := post(t, trouble, "login")
			if err == nil && (status != 201 || body != "POST /v1/login the body") {
				err = fmt.Errorf("got status %d, body %q", status, body)
			}
			done <- err
		}()
		<-gate.Arrived()
		if got := reached.Load(); got != row.held {
			t.Errorf("%s: got %d requests behind while the gate is closed, want %d", row.name, got, row.held)
		}
		gate.Open()
		check(t, row.name, <-done)
		if got := reached.Load(); got != 1 {
			t.Errorf("%s: got %d requests behind in the end, want 1", row.name, got)
		}
	}
}

func TestTroubleBeforeNothing(t *testing.T) {
	trouble, err := bedtest.Open(t).StartTrouble("http://127.0.0.1:1")
	check(t, "trouble", err)
	for name, b := range map[string]bed.Behaviour{"pass": bed.Pass, "lose": bed.LoseAnswer} {
		trouble.Set(b)
		if _, _, _, err := post(t, trouble, "a"); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("%s: got %v, want a closed connection", name, err)
		}
	}
}
