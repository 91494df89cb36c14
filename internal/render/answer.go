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

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// answer is what came of one source: a grant with its data decoded. It is shared: nobody may change the data.
type answer struct {
	grant client.Grant
	data  map[string]any // numbers are json.Number: they keep Vault's own text
}

// What JSON takes once it is decoded, in bytes and never too few: a map, the first group of eight pairs in it, a list, and
// for each comma and colon another element or pair, with its value in a box and its share of a growing map or list. A map of
// seven bytes takes fifty times as much.
const (
	heapOfMap     = 64
	heapOfGroup   = 288
	heapOfList    = 64
	heapOfElement = 64
	heapOfPair    = 64
)

// sizeDecoded is about what a JSON text takes once it is decoded, and never less. It takes a fraction of the time that
// decoding takes.
func sizeDecoded(text []byte) int {
	size, before := len(text), byte(0)
	for c := range structure(text) {
		switch c {
		case '{':
			size += heapOfMap
		case '[':
			size += heapOfList + heapOfElement
		case ':':
			if before == '{' {
				size += heapOfGroup
			}
			size += heapOfPair
		case ',':
			size += heapOfElement
		default:
			continue
		}
		before = c
	}
	return size
}

// decode decodes a grant's data, once for all of its objects. Errors of the JSON package are not passed on: they may
// quote what they read.
func decode(grant client.Grant) (answer, error) {
	var data map[string]any
	decoder := json.NewDecoder(bytes.NewReader(grant.Data.Reveal()))
	decoder.UseNumber()
	err := decoder.Decode(&data)
	if err == nil {
		_, err = decoder.Token() // io.EOF, for nothing may follow
	}
	if !errors.Is(err, io.EOF) {
		return answer{}, fmt.Errorf("read %q: the data of vault's answer is not a JSON object", grant.Source.Path)
	}
	if data == nil {
		return answer{}, fmt.Errorf("read %q: vault's answer has no data", grant.Source.Path)
	}
	return answer{grant, data}, nil
}

// values returns a copy of the data, for a template that may change it.
func (a answer) values() map[string]any { return copiedMap(a.data) }

func copiedMap(values map[string]any) map[string]any {
	fresh := make(map[string]any, len(values))
	for key, value := range values {
		fresh[key] = copied(value)
	}
	return fresh
}

func copied(value any) any {
	switch value := value.(type) {
	case map[string]any:
		return copiedMap(value)
	case []any:
		fresh := make([]any, len(value))
		for i, inner := range value {
			fresh[i] = copied(inner)
		}
		return fresh
	}
	return value // immutable
}

// render returns the bytes of an object's file. Its errors name keys and never values.
func (a answer) render(o spec.Object) ([]byte, error) {
	if o.Key == "" {
		return a.whole(o.Format)
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
	text, err := textOf(value)
	if err != nil {
		return nil, fmt.Errorf("read %q: key %q %w", o.Source.Path, o.Key, err)
	}
	contents, err := unpack(text, o.Encoding)
	if err != nil {
		return nil, fmt.Errorf("read %q: key %q %w", o.Source.Path, o.Key, err)
	}
	return contents, nil
}

// textOf returns a text as it is, and anything else as JSON.
func textOf(value any) (string, error) {
	if text, ok := value.(string); ok {
		return text, nil
	}
	written, err := json.Marshal(value)
	if err != nil { // what was decoded can be encoded
		return "", errors.New("cannot be written as JSON")
	}
	return string(written), nil
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
