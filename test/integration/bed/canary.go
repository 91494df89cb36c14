package bed

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// shortest is the length of the shortest text that counts as a secret: shorter ones are found everywhere.
const shortest = 8

// Secrets returns every secret text in an audit file that was written with log_raw: the tokens of all requests and logins,
// the JWTs, passwords and other credentials that were sent, and every text of the data that a secrets engine was given or
// answered, except those that are names by their key (user names, serial numbers, times). Sorted, without duplicates, and
// none shorter than 8 bytes.
func Secrets(auditFile string) ([]string, error) {
	file, err := os.Open(auditFile)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	found := make(secretSet)
	lines := json.NewDecoder(file)
	for n := 1; ; n++ {
		var entry auditEntry
		switch err := lines.Decode(&entry); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // the last line may be half written
			return found.list(), nil
		case err != nil:
			return nil, fmt.Errorf("audit file %q: entry %d: %w", auditFile, n, err)
		}
		found.addEntry(entry)
	}
}

// auditEntry is what we read of a line: a request, or a request with its answer.
type auditEntry struct {
	Auth    auditAuth `json:"auth"`
	Request struct {
		ClientToken string         `json:"client_token"`
		MountType   string         `json:"mount_type"`
		MountClass  string         `json:"mount_class"`
		Data        map[string]any `json:"data"`
	} `json:"request"`
	Response struct {
		Auth     auditAuth      `json:"auth"`
		Data     map[string]any `json:"data"`
		WrapInfo struct {
			Token string `json:"token"`
		} `json:"wrap_info"`
	} `json:"response"`
}

type auditAuth struct {
	ClientToken string `json:"client_token"`
}

// credentials are the keys of request data that hold a secret on any path.
var credentials = []string{"jwt", "token", "password", "secret_id", "key", "private_key"}

// public are the keys of a secrets engine's data whose texts are no secrets.
var public = []string{
	"username", "serial_number", "private_key_type", "expiration", "ttl", "not_before", "not_after",
	"issuing_ca", "ca_chain", "common_name", "alt_names", "ip_sans", "format",
	"last_vault_rotation", "created_time", "updated_time", "deletion_time", "custom_metadata",
}

type secretSet map[string]bool

func (s secretSet) list() []string {
	all := make([]string, 0, len(s))
	for secret := range s {
		all = append(all, secret)
	}
	slices.Sort(all)
	return all
}

func (s secretSet) add(text string) {
	if len(text) >= shortest {
		s[text] = true
	}
}

func (s secretSet) addEntry(e auditEntry) {
	s.add(e.Auth.ClientToken)
	s.add(e.Request.ClientToken)
	s.add(e.Response.Auth.ClientToken)
	s.add(e.Response.WrapInfo.Token)
	for _, key := range credentials {
		if text, ok := e.Request.Data[key].(string); ok {
			s.add(text)
		}
	}
	if e.Request.MountClass != "secret" {
		return
	}
	switch e.Request.MountType {
	case "system", "identity", "cubbyhole", "ns_system", "ns_identity", "ns_cubbyhole":
	case "kv":
		s.addLeaves(e.Request.Data)
		s.addLeaves(e.Response.Data)
	default:
		// Requests to other engines are configuration; the credentials in it are taken above.
		s.addLeaves(e.Response.Data)
	}
}

func (s secretSet) addLeaves(value any) {
	switch value := value.(type) {
	case string:
		s.add(value)
	case []any:
		for _, item := range value {
			s.addLeaves(item)
		}
	case map[string]any:
		for key, item := range value {
			if !slices.Contains(public, key) {
				s.addLeaves(item)
			}
		}
	}
}

// Leak is a secret that was found in a text. It can be printed: it does not hold the secret.
type Leak struct {
	Text    string // the name of the text
	Line    int    // in the text, from 1
	Form    string // "plain", "JSON", "base64" or "JWT signature"
	Excerpt string // the line, with the secret masked, shortened
}

func (l Leak) String() string { return fmt.Sprintf("%s:%d: %s: %s", l.Text, l.Line, l.Form, l.Excerpt) }

// Leaks searches texts, by name, for secrets: as they are, escaped as in JSON, and in base64 (standard and URL alphabet,
// alone or anywhere inside a longer encoded text). It takes a second for ten thousand secrets and some ten MiB. Secrets
// shorter than 8 bytes are not looked for.
func Leaks(secrets []string, texts map[string][]byte) []Leak {
	index := newIndex(secrets)
	names := make([]string, 0, len(texts))
	for name := range texts {
		names = append(names, name)
	}
	slices.Sort(names)
	var leaks []Leak
	for _, name := range names {
		leaks = append(leaks, index.search(name, texts[name])...)
	}
	return leaks
}

// pattern is one form of a secret.
type pattern struct{ text, form string }

// index finds patterns by their first eight bytes.
type index struct {
	known   map[pattern]bool
	byStart map[uint64][]pattern
}

func newIndex(secrets []string) index {
	x := index{make(map[pattern]bool), make(map[uint64][]pattern)}
	for _, secret := range secrets {
		if len(secret) < shortest {
			continue
		}
		x.add(secret, "plain")
		for _, escapeHTML := range []bool{false, true} {
			if escaped := escape(secret, escapeHTML); escaped != secret {
				x.add(escaped, "JSON")
			}
		}
		for before := range 3 {
			x.add(base64Core(base64.RawStdEncoding, secret, before), "base64")
			x.add(base64Core(base64.RawURLEncoding, secret, before), "base64")
		}
		// Whoever shortens a JWT may still show what makes it valid.
		if parts := strings.Split(secret, "."); len(parts) == 3 && strings.HasPrefix(secret, "eyJ") {
			x.add(parts[2], "JWT signature")
		}
	}
	return x
}

// escape returns text as it stands between the quotes of a JSON string.
func escape(text string, escapeHTML bool) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(escapeHTML)
	if err := encoder.Encode(text); err != nil {
		panic(err) // a string can be encoded
	}
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b.String()), `"`), `"`)
}

// base64Core returns those characters of the encoding that depend on text alone, when it begins before bytes after a
// multiple of three. Every character holds six bits.
func base64Core(encoding *base64.Encoding, text string, before int) string {
	encoded := encoding.EncodeToString(append(make([]byte, before), text...))
	first := (8*before + 5) / 6
	last := 8 * (before + len(text)) / 6
	return encoded[first:last]
}

func (x index) add(text, form string) {
	if len(text) < shortest {
		return
	}
	p := pattern{text, form}
	if x.known[p] {
		return
	}
	x.known[p] = true
	start := binary.BigEndian.Uint64([]byte(text[:shortest]))
	x.byStart[start] = append(x.byStart[start], p)
}

// search looks at every window of eight bytes.
func (x index) search(name string, text []byte) []Leak {
	var leaks []Leak
	var window uint64
	for i, c := range text {
		window = window<<8 | uint64(c)
		if i < shortest-1 {
			continue
		}
		start := i - shortest + 1
		for _, p := range x.byStart[window] {
			if bytes.HasPrefix(text[start:], []byte(p.text)) {
				leaks = append(leaks, newLeak(name, text, start, p))
			}
		}
	}
	return leaks
}

func newLeak(name string, text []byte, start int, p pattern) Leak {
	const around = 100
	begin := bytes.LastIndexByte(text[:start], '\n') + 1
	end := start + len(p.text)
	stop := len(text)
	if n := bytes.IndexByte(text[end:], '\n'); n >= 0 {
		stop = end + n
	}
	before, after := text[max(begin, start-around):start], text[end:min(stop, end+around)]
	return Leak{
		Text:    name,
		Line:    bytes.Count(text[:start], []byte("\n")) + 1,
		Form:    p.form,
		Excerpt: string(before) + "[SECRET]" + string(after),
	}
}
