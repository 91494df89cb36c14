package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"leasehold/test/integration/bed"
)

// entry is one login or one read of database credentials that Vault has carried out.
type entry struct {
	volume   string // whose: see volume.key
	token    string
	accessor string // of a login
	lease    string // of a read
	user     string // of a read
	login    *entry // of a read: that of its token

	arrived, answered time.Time // at and by the proxy
	known             bool      // the provider has it: it was in the journal, or in a volume, or the provider used it
	end               time.Time // when it ends by itself, as of its last renewal
	revoked           bool      // of a login: its token was given back
	orphan            bool      // its sender was dead before it arrived
}

// line is one request, for whoever has to find out what happened.
type line struct {
	at           time.Time
	volume, text string
}

// kill is a kill of the provider: it lived until after from, and was dead by to.
type kill struct{ from, to time.Time }

// recorder stands between the provider and Vault. It notes who got what, and delays some of it, so that kills strike
// requests in flight.
type recorder struct {
	trigger *trigger
	journal func() (string, error) // what stands in it

	mu     sync.Mutex // guards all below
	random *rand.Rand
	logins []*entry
	reads  []*entry
	tokens map[string]*entry // :: token -> its login
	leases map[string]*entry // :: lease -> its read
	total  int
	kills  []kill // in order
	story  []line
	early  []string // tokens that were used before the journal had them
}

func newRecorder(seed uint64, t *trigger, journal func() (string, error)) *recorder {
	return &recorder{
		trigger: t, journal: journal, random: rand.New(rand.NewPCG(seed, 1)), tokens: make(map[string]*entry), leases: make(map[string]*entry),
	}
}

// pause is a delay that is often none.
func (r *recorder) pause() {
	r.mu.Lock()
	d := time.Duration(0)
	if r.random.IntN(3) == 0 {
		d = time.Duration(r.random.IntN(20_000)) * time.Microsecond
	}
	r.mu.Unlock()
	time.Sleep(d)
}

// behave passes a request on, and is a bed.Behaviour.
func (r *recorder) behave(w http.ResponseWriter, req *http.Request, pass http.Handler) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	path, token := strings.TrimPrefix(req.URL.Path, "/v1/"), req.Header.Get("X-Vault-Token")

	// A living sender is one that lived at this time, and a dead one one that died before it.
	e := &entry{arrived: time.Now()}
	if bed.HungUp(req) {
		e.orphan, e.arrived = true, time.Now()
	}
	r.mu.Lock()
	r.total++
	r.use(path, token, body)
	r.mu.Unlock()
	r.trigger.pull(request, path)
	r.pause()
	said := httptest.NewRecorder()
	pass.ServeHTTP(said, req)
	r.mu.Lock()
	r.note(e, path, token, body, said)
	r.tell(e, path, token, said)
	r.mu.Unlock()
	r.pause()
	for name, values := range said.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(said.Code)
	_, _ = w.Write(said.Body.Bytes()) // whoever asked may be dead
	_ = http.NewResponseController(w).Flush()
	r.mu.Lock()
	e.answered = time.Now()
	r.mu.Unlock()
	r.trigger.pull(answer, path)
}

// tell adds a request to the story.
func (r *recorder) tell(e *entry, path, token string, said *httptest.ResponseRecorder) {
	who := e.volume
	if login := r.tokens[token]; login != nil {
		who = login.volume
	}
	var answer struct {
		Seconds int `json:"lease_duration"`
		Auth    struct {
			Seconds int `json:"lease_duration"`
		} `json:"auth"`
	}
	_ = json.Unmarshal(said.Body.Bytes(), &answer)
	text := fmt.Sprintf("%s: %d, for %d s", path, said.Code, answer.Seconds+answer.Auth.Seconds)
	r.story = append(r.story, line{e.arrived, who, text})
}

// storyOf returns the requests for a volume, and the kills, in order.
func (r *recorder) storyOf(volume string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []line
	for _, l := range r.story {
		if l.volume == volume {
			lines = append(lines, l)
		}
	}
	for _, k := range r.kills {
		lines = append(lines, line{at: k.from, text: "kill"})
	}
	slices.SortFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	var all []string
	for _, l := range lines {
		all = append(all, l.at.Format("15:04:05.000 ")+l.text)
	}
	return all
}

// use notes what the provider shows to know by its request.
func (r *recorder) use(path, token string, body []byte) {
	login := r.tokens[token]
	if login == nil {
		return
	}
	if !login.known {
		if text, err := r.journal(); err != nil || !strings.Contains(text, login.accessor) {
			r.early = append(r.early, fmt.Sprintf("used for %s: %v (%v)", path, login, err))
		}
		login.known = true
	}
	if path == "sys/leases/renew" {
		var said struct {
			Lease string `json:"lease_id"`
		}
		if json.Unmarshal(body, &said) == nil && r.leases[said.Lease] != nil {
			r.leases[said.Lease].known = true
		}
	}
}

// note notes what Vault has done.
func (r *recorder) note(e *entry, path, token string, body []byte, said *httptest.ResponseRecorder) {
	if said.Code >= 300 {
		return
	}
	var answer struct {
		Lease string `json:"lease_id"`
		Data  struct {
			User string `json:"username"`
		} `json:"data"`
		Auth struct {
			Token    string `json:"client_token"`
			Accessor string `json:"accessor"`
			Seconds  int    `json:"lease_duration"`
		} `json:"auth"`
		Seconds int `json:"lease_duration"`
	}
	_ = json.Unmarshal(said.Body.Bytes(), &answer)
	end := time.Now().Add(time.Duration(answer.Seconds+answer.Auth.Seconds) * time.Second) // one of them is 0
	switch {
	case path == "auth/token/renew-self":
		if login := r.tokens[token]; login != nil {
			login.end = end
		}
	case path == "sys/leases/renew":
		if read := r.leases[answer.Lease]; read != nil {
			read.end = end
		}
	case strings.HasSuffix(path, "/login"):
		e.volume, e.token, e.accessor, e.end = loginOf(body), answer.Auth.Token, answer.Auth.Accessor, end
		r.logins = append(r.logins, e)
		r.tokens[e.token] = e
	case strings.HasPrefix(path, "database/creds/"):
		e.token, e.lease, e.user, e.login, e.end = token, answer.Lease, answer.Data.User, r.tokens[token], end
		if e.login != nil {
			e.volume = e.login.volume
		}
		r.reads = append(r.reads, e)
		r.leases[e.lease] = e
	case path == "auth/token/revoke-self":
		if login := r.tokens[token]; login != nil {
			login.revoked = true
		}
	}
}

// loginOf returns the key of the volume that a login is for, from its body.
func loginOf(body []byte) string {
	var said struct {
		Role string `json:"role"`
		JWT  string `json:"jwt"`
	}
	var claims struct {
		Kubernetes struct {
			Pod struct {
				UID string `json:"uid"`
			} `json:"pod"`
		} `json:"kubernetes.io"`
	}
	if json.Unmarshal(body, &said) != nil {
		return ""
	}
	parts := strings.Split(said.JWT, ".")
	if len(parts) != 3 {
		return ""
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &claims) != nil {
		return ""
	}
	return key(claims.Kubernetes.Pod.UID, said.Role)
}

// sees marks what stands in the journal, by its lease or accessor, as known.
func (r *recorder) sees(journal string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look(journal)
}

func (r *recorder) look(journal string) {
	for _, e := range slices.Concat(r.logins, r.reads) {
		if !e.known && (e.lease != "" && strings.Contains(journal, e.lease) || e.accessor != "" && strings.Contains(journal, e.accessor)) {
			e.known = true
		}
	}
}

// shows marks what a volume shows, by its user, as known.
func (r *recorder) shows(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.readOf(user); e != nil {
		e.known = true
	}
}

// endOf returns when a user ends by itself: with its lease, or with the token that the lease came by.
func (r *recorder) endOf(user string) (end time.Time, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.readOf(user)
	if e == nil || e.login == nil {
		return end, false
	}
	if end = e.end; e.login.end.Before(end) {
		end = e.login.end
	}
	return end, true
}

// readOf returns the read that gave a user, or nil. r.mu is held.
func (r *recorder) readOf(user string) *entry {
	for _, e := range slices.Backward(r.reads) {
		if e.user == user {
			return e
		}
	}
	return nil
}

// killed notes that the provider was killed and left this journal.
func (r *recorder) killed(k kill, journal string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look(journal)
	r.kills = append(r.kills, k)
}

// of returns the logins and reads of a volume, in the order in which Vault carried them out.
func (r *recorder) of(volume string) (logins, reads []*entry) {
	mine := func(all []*entry) (found []*entry) {
		for _, e := range all {
			if e.volume == volume {
				found = append(found, e)
			}
		}
		return found
	}
	return mine(r.logins), mine(r.reads)
}

// String tells of an entry without a secret.
func (e *entry) String() string {
	what := "lease " + e.lease
	if e.lease == "" {
		what = "token " + e.accessor
	}
	return fmt.Sprintf("%s of %s, asked %s, answered %s, known %t, orphan %t", what, e.volume,
		e.arrived.Format("15:04:05.000"), e.answered.Format("15:04:05.000"), e.known, e.orphan)
}
