package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Kind says what to do next.
type Kind int

// The kinds of an [Error].
const (
	Unavailable Kind = iota + 1 // later: network trouble, 5xx, 429, sealed, no sensible answer
	Denied                      // this identity may not: the login was refused, or the policy says no
	Missing                     // there is nothing at that path
	Expired                     // the token or the lease is gone: replace it
	Rejected                    // asking again cannot help: bad arguments, unsupported operation, refused redirect or token
)

// String returns the kind as a metric label.
func (k Kind) String() string {
	switch k {
	case Unavailable:
		return "unavailable"
	case Denied:
		return "denied"
	case Missing:
		return "missing"
	case Expired:
		return "expired"
	case Rejected:
		return "rejected"
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// phrase is the kind as a person reads it in an error.
func (k Kind) phrase() string {
	switch k {
	case Unavailable:
		return "vault is unavailable"
	case Denied:
		return "permission denied"
	case Missing:
		return "nothing found"
	case Expired:
		return "token or lease is gone"
	case Rejected:
		return "refused"
	}
	return k.String()
}

// Error is every error that this package returns for a request.
type Error struct {
	Kind   Kind
	Op     string // "login", "read", "find-mount", "renew-token", "renew-lease", "revoke" or "capabilities"
	Path   string // Vault path without v1/
	Status int    // HTTP status, 0 without an answer

	// Reasons are Vault's own words, or ours where we refuse what Vault granted: one line each, bounded, without
	// the JWT and the token that we sent. A body that is not Vault's JSON never gets here.
	Reasons []string

	RetryAfter time.Duration // how long a 429 or 503 asks us to wait, or 0

	// InDoubt says that Vault may have carried the request out although we have no usable answer: a database user
	// or a token may exist that nobody knows of.
	InDoubt bool

	Err error // the cause when there is no usable answer (network, TLS, nonsense), or nil
}

// Error returns one line: op "path": what happened (status): reasons: cause.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q: %s", e.Op, e.Path, e.Kind.phrase())
	if e.Status != 0 {
		fmt.Fprintf(&b, " (%d)", e.Status)
	}
	var reasons []string
	for _, r := range e.Reasons {
		if r != e.Kind.phrase() {
			reasons = append(reasons, r)
		}
	}
	if len(reasons) > 0 {
		b.WriteString(": " + strings.Join(reasons, "; "))
	}
	if e.Err != nil {
		b.WriteString(": " + oneLine(e.Err.Error()))
	}
	return b.String()
}

// Unwrap returns the cause, so that errors.Is finds context.Canceled and its like.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of an error of this package, or 0 for any other.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return 0
}

// The texts by which Vault tells apart what it gives one status. They are read here and nowhere else; the contract
// suite pins them against a real Vault.
const (
	textInvalidToken  = "invalid token"   // 403: the token is gone; a policy's no lacks it
	textLeaseNotFound = "lease not found" // 400 of sys/leases/renew
	textInvalidLease  = "invalid lease"   // 400 of sys/leases/lookup and revoke; 400 of renew-self, "invalid lease ID"
	textLeaseExpired  = "lease expired"   // 400 of sys/leases/renew: over, but not yet swept
	textPastMaxTTL    = "past the max TTL, cannot renew"

	// textRenewFailed is 400 of sys/leases/renew when the engine behind could not do it: its database is away, say.
	textRenewFailed = "failed to renew entry"
)

// judge is the one switch over Vault's answers. It returns nil for a success.
func judge(op string, a answer) *Error {
	if a.status >= 200 && a.status < 300 {
		return nil
	}
	e := &Error{Status: a.status, RetryAfter: retryAfter(a)}
	var ours bool
	e.Reasons, ours = reasons(a.body)
	if !ours && a.status != http.StatusTooManyRequests {
		// Some other server answered in Vault's stead, a proxy perhaps, and may have passed the request on.
		e.Kind, e.InDoubt, e.Err = Unavailable, true, nonsense(a)
		return e
	}
	said := func(text string) bool { return strings.Contains(strings.Join(e.Reasons, "; "), text) }
	switch {
	case a.status == http.StatusBadRequest && op == opLogin, a.status == http.StatusForbidden && op == opLogin:
		e.Kind = Denied // role unknown, service account not bound, audience wrong, JWT expired
	case a.status == http.StatusBadRequest && (said(textLeaseNotFound) || said(textInvalidLease) || said(textLeaseExpired)):
		e.Kind = Expired
	case (op == opRenewToken || op == opRenewLease) && said(textPastMaxTTL):
		e.Kind = Expired // 400 of a lease, 500 of a token: it still lives for a moment, but not for another one
	case a.status == http.StatusBadRequest && op == opRenewLease && said(textRenewFailed):
		e.Kind = Unavailable
	case a.status == http.StatusForbidden && said(textInvalidToken):
		e.Kind = Expired
	case a.status == http.StatusForbidden:
		e.Kind = Denied
	case a.status == http.StatusNotFound:
		e.Kind = Missing
	case a.status == http.StatusPreconditionFailed, a.status == http.StatusTooManyRequests:
		e.Kind = Unavailable // 412: a replica has not caught up yet
	case a.status == http.StatusBadGateway, a.status == http.StatusGatewayTimeout:
		e.Kind, e.InDoubt = Unavailable, true
	case a.status >= 500:
		e.Kind = Unavailable // Vault says that it failed, and cleans up after itself; 503: sealed
	default:
		e.Kind = Rejected
	}
	return e
}

// reasons reads the body of an answer that is not a success, and tells whether Vault wrote it.
func reasons(body []byte) (texts []string, vaults bool) {
	var said struct {
		Request  string   `json:"request_id"`
		Errors   []string `json:"errors"`
		Warnings []string `json:"warnings"`
		Data     struct {
			Metadata struct {
				Version   json.Number `json:"version"`
				Deleted   string      `json:"deletion_time"`
				Destroyed bool        `json:"destroyed"`
			} `json:"metadata"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &said) != nil || (said.Request == "" && said.Errors == nil) {
		return nil, false
	}
	// A path without data/ in front of a KV v2 secret is a 404 whose warning says so.
	texts = append(said.Errors, said.Warnings...)
	// A deleted version of a KV v2 secret is a 404 with the version's metadata.
	switch m := said.Data.Metadata; {
	case m.Destroyed:
		texts = append(texts, fmt.Sprintf("version %s was destroyed", m.Version))
	case m.Deleted != "":
		texts = append(texts, fmt.Sprintf("version %s was deleted at %s", m.Version, m.Deleted))
	}
	return texts, true
}

// nonsense describes an answer that is not Vault's, without its body.
func nonsense(a answer) error {
	kind := a.header.Get("Content-Type")
	if kind == "" {
		kind = "no content type"
	}
	return fmt.Errorf("the answer is not Vault's (%s, %d bytes); is a proxy in between?", kind, len(a.body))
}

// retryAfter reads the header that a rate limit quota (429) or a proxy (503) sets: seconds, or a date.
func retryAfter(a answer) time.Duration {
	if a.status != http.StatusTooManyRequests && a.status != http.StatusServiceUnavailable {
		return 0
	}
	value := a.header.Get("Retry-After")
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(date))
	}
	return 0
}

const (
	maxReasons = 8
	maxReason  = 512 // bytes of one reason or cause
)

// word is a run of the characters that credentials are made of, credential a beginning that gives one away.
var (
	word       = regexp.MustCompile(`[\w.+/=-]+`)
	credential = regexp.MustCompile(`eyJ|\bhv[sbr]\.`)
)

// fragment is how many characters a word and a secret must have in common for the word to go: an echo may be cut off at
// either end.
const fragment = 16

// betrays tells whether a word shows a secret, or a part of it.
func betrays(word, secret string) bool {
	if len(secret) < fragment {
		return secret != "" && word == secret
	}
	for i := 0; i+fragment <= len(word); i++ {
		if strings.Contains(secret, word[i:i+fragment]) {
			return true
		}
	}
	return false
}

// clean takes the secrets that we sent out of an error, whoever echoed them, and whatever else looks like a JWT or a
// Vault token, and bounds its texts.
func (e *Error) clean(secrets ...string) {
	wash := func(text string) string {
		text = oneLine(text[:min(len(text), 8*maxReason)])
		return bounded(word.ReplaceAllStringFunc(text, func(w string) string {
			if credential.MatchString(w) || slices.ContainsFunc(secrets, func(s string) bool { return betrays(w, s) }) {
				return "redacted"
			}
			return w
		}))
	}
	reasons := make([]string, 0, len(e.Reasons))
	for _, r := range e.Reasons[:min(len(e.Reasons), maxReasons)] {
		if r = wash(r); r != "" {
			reasons = append(reasons, r)
		}
	}
	e.Reasons = reasons
	// A cause that needed washing is replaced as a whole: its chain holds the unwashed text.
	if e.Err != nil {
		if text := e.Err.Error(); wash(text) != text {
			e.Err = errors.New(wash(text))
		}
	}
}

// listHead and listItem are what Vault's lists of errors look like ("2 errors occurred:\n\t* one\n\t* two\n\n"), also
// when one is inside another.
var (
	listHead = regexp.MustCompile(`\d+ error(s|\(s\))? (occurred|decoding):\s*\*\s*`)
	listItem = regexp.MustCompile(`\s*\n\s*\*\s*`)
)

// oneLine flattens a text to one printable line.
func oneLine(text string) string {
	text = listHead.ReplaceAllString(strings.TrimSpace(text), "")
	text = listItem.ReplaceAllString(text, "; ")
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// bounded cuts a text that is too long for a log line, at a rune.
func bounded(text string) string {
	if len(text) <= maxReason {
		return text
	}
	return strings.ToValidUTF8(text[:maxReason], "") + "..."
}
