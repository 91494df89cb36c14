package render

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// answer is what came of one source: a grant with its data decoded, or an error.
type answer struct {
	grant client.Grant
	data  map[string]any // numbers are json.Number: they keep Vault's own text
	err   error
	unfit bool // err is what is wrong with an answer that came
}

// decode decodes a grant's data, once for all of its objects. Errors of the JSON package are not passed on: they may
// quote what they read.
func decode(grant client.Grant) answer {
	var data map[string]any
	decoder := json.NewDecoder(bytes.NewReader(grant.Data.Reveal()))
	decoder.UseNumber()
	err := decoder.Decode(&data)
	if err == nil {
		_, err = decoder.Token() // io.EOF, for nothing may follow
	}
	if !errors.Is(err, io.EOF) {
		return answer{err: fmt.Errorf("read %q: the data of vault's answer is not a JSON object", grant.Source.Path), unfit: true}
	}
	if data == nil {
		return answer{err: fmt.Errorf("read %q: vault's answer has no data", grant.Source.Path), unfit: true}
	}
	return answer{grant: grant, data: data}
}

// render returns the bytes of an object's file. Its errors name keys and never values.
func (a answer) render(o spec.Object) ([]byte, error) {
	if o.Key == "" {
		return a.whole()
	}
	fields := a.fields()
	value, ok := fields[o.Key]
	if !ok {
		cause := "there are no keys"
		if len(fields) > 0 {
			cause = "the keys there are " + quoteList(slices.Sorted(maps.Keys(fields)))
		}
		return nil, fmt.Errorf("read %q: no key %q: %s", o.Source.Path, o.Key, cause)
	}
	text, isText := value.(string)
	if !isText {
		written, err := json.Marshal(value)
		if err != nil { // what was decoded can be encoded
			return nil, fmt.Errorf("read %q: key %q cannot be written as JSON", o.Source.Path, o.Key)
		}
		text = string(written)
	}
	contents, err := unpack(text, o.Encoding)
	if err != nil {
		return nil, fmt.Errorf("read %q: key %q %w", o.Source.Path, o.Key, err)
	}
	return contents, nil
}

// fields returns where keys are looked up: KV version 2 wraps the secret's own fields in one more "data".
func (a answer) fields() map[string]any {
	if inner, ok := a.data["data"].(map[string]any); ok {
		return inner
	}
	return a.data
}

// unpack decodes a value from Vault. Its errors do not quote it.
func unpack(text string, encoding spec.Encoding) ([]byte, error) {
	switch encoding {
	case spec.UTF8:
		return []byte(text), nil
	case spec.Base64:
		if contents, err := base64.StdEncoding.DecodeString(text); err == nil {
			return contents, nil
		}
		return nil, errors.New("is not base64 (the standard alphabet, with padding): correct the value in Vault, or the " +
			"object's encoding")
	case spec.Hex:
		if contents, err := hex.DecodeString(text); err == nil {
			return contents, nil
		}
		return nil, errors.New("is not hexadecimal: correct the value in Vault, or the object's encoding")
	}
	return nil, fmt.Errorf("has the unknown encoding %d", encoding)
}

// whole returns the whole answer as vault-csi-provider writes it, but for what changes at every request though the secret does
// not: the request's own identifier, and a remaining time.
func (a answer) whole() ([]byte, error) {
	data := a.data
	if isStaticRole(data) {
		data = maps.Clone(data)
		delete(data, "ttl")
	}
	contents, err := json.Marshal(struct {
		LeaseID       string         `json:"lease_id"`
		LeaseDuration int64          `json:"lease_duration"` // seconds
		Renewable     bool           `json:"renewable"`
		Data          map[string]any `json:"data"`
		Warnings      []string       `json:"warnings"`
	}{
		a.grant.LeaseID, int64(a.grant.LeaseDuration / time.Second), a.grant.Renewable, data, a.grant.Warnings,
	})
	if err != nil { // what was decoded can be encoded
		return nil, fmt.Errorf("read %q: the answer cannot be written as JSON", a.grant.Source.Path)
	}
	return contents, nil
}

// isStaticRole tells the answer of a static role (database/static-creds, ldap/static-cred) by its own fields: ttl is
// there the time until the next rotation and falls from second to second. Elsewhere a ttl is a field like any other.
func isStaticRole(data map[string]any) bool {
	_, rotated := data["last_vault_rotation"]
	_, remaining := data["ttl"].(json.Number)
	return rotated && remaining
}
