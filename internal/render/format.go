package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"leasehold/internal/spec"
)

// whole returns the whole answer in a format. The zero format is JSON: a class that an earlier version wrote down has none.
// Errors name keys and never values.
func (a answer) whole(format spec.Format) ([]byte, error) {
	switch format {
	case 0, spec.FormatJSON:
		return a.json()
	case spec.FormatMap:
		return a.lines(a.data, appendEntry)
	case spec.FormatData:
		contents, err := json.Marshal(a.data)
		if err != nil { // what was decoded can be encoded
			return nil, a.fault("the data cannot be written as JSON")
		}
		return append(contents, '\n'), nil
	case spec.FormatEnv:
		fields := a.lasting().fields()
		if err := a.checkNames(fields); err != nil {
			return nil, err
		}
		return a.lines(fields, appendVariable)
	case spec.FormatProperties:
		return a.lines(a.lasting().fields(), appendProperty)
	}
	return nil, a.fault("the unknown format %d", format)
}

// fault is an error about the answer of the source.
func (a answer) fault(format string, args ...any) error {
	return fmt.Errorf("read %q: "+format, append([]any{a.grant.Source.Path}, args...)...)
}

// json returns the answer as vault-csi-provider writes it, but for what changes at every request though the secret does not:
// the request's own identifier, and a remaining time.
func (a answer) json() ([]byte, error) {
	contents, err := json.Marshal(struct {
		LeaseID       string         `json:"lease_id"`
		LeaseDuration int64          `json:"lease_duration"` // seconds
		Renewable     bool           `json:"renewable"`
		Data          map[string]any `json:"data"`
		Warnings      []string       `json:"warnings"`
	}{
		a.grant.LeaseID, int64(a.grant.LeaseDuration / time.Second), a.grant.Renewable, a.lasting().data, a.grant.Warnings,
	})
	if err != nil { // what was decoded can be encoded
		return nil, a.fault("the answer cannot be written as JSON")
	}
	return contents, nil
}

// lasting returns the answer without what changes though the secret does not. The formats that repeat the injector's bytes
// do without it.
func (a answer) lasting() answer {
	if isStaticRole(a.data) {
		a.data = maps.Clone(a.data)
		delete(a.data, "ttl")
	}
	return a
}

// isStaticRole tells the answer of a static role (database/static-creds, ldap/static-cred) by its own fields: ttl is
// there the time until the next rotation and falls from second to second. Elsewhere a ttl is a field like any other.
func isStaticRole(data map[string]any) bool {
	_, remaining := data["ttl"].(json.Number)
	return remaining && data["last_vault_rotation"] != nil
}

// lines writes a line for each key, in the order of their bytes.
func (a answer) lines(data map[string]any, line func(to []byte, key string, value any) ([]byte, error)) ([]byte, error) {
	contents := []byte{}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		var err error
		if contents, err = line(contents, key, data[key]); err != nil {
			return nil, a.fault("key %q %w", key, err)
		}
		if len(contents) > maxTotal {
			return nil, a.fault("the file would have more than %d bytes: take single fields with secretKey", maxTotal)
		}
	}
	return contents, nil
}

// appendEntry appends "key: value" as text/template prints both, which is as the package fmt does it, but for a null.
func appendEntry(to []byte, key string, value any) ([]byte, error) {
	if value == nil {
		value = "<no value>"
	}
	return fmt.Appendf(to, "%s: %v\n", key, value), nil
}

// shellName is the name of a variable in a POSIX shell.
var shellName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// checkNames names all keys that no shell takes for the name of a variable. They are not changed into names: two of them
// could become one, and nobody would find in the shell what is in Vault.
func (a answer) checkNames(fields map[string]any) error {
	var wrong []string
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if !shellName.MatchString(key) {
			wrong = append(wrong, key)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return a.fault("no shell has a variable of the name %s: a name has letters, digits and _, and no digit first; rename the key in "+
		"Vault, or name the variable in a template", quoteList(wrong))
}

// fieldText returns a field as a text. A null is an empty one: neither format knows another.
func fieldText(value any) (string, error) {
	if value == nil {
		return "", nil
	}
	return textOf(value)
}

var errNUL = errors.New("has a NUL byte in it, which no variable of a shell can hold: name the key in the secretKey of an object " +
	"of its own")

// appendVariable appends KEY='value'. Between single quotes a shell takes everything for what it is, newlines too, but for
// another single quote: that one stands behind a backslash, outside of them.
func appendVariable(to []byte, key string, value any) ([]byte, error) {
	text, err := fieldText(value)
	if err != nil {
		return nil, err
	}
	if strings.Contains(text, "\x00") {
		return nil, errNUL
	}
	to = append(append(to, key...), "='"...)
	to = append(to, strings.ReplaceAll(text, "'", `'\''`)...)
	return append(to, "'\n"...), nil
}

// appendProperty appends key=value as java.util.Properties reads it.
func appendProperty(to []byte, key string, value any) ([]byte, error) {
	text, err := fieldText(value)
	if err != nil {
		return nil, err
	}
	to = append(appendEscaped(to, key, true), '=')
	return append(appendEscaped(to, text, false), '\n'), nil
}

// appendEscaped escapes what has a meaning in a file of properties. A blank ends a key; in a value only those before it
// would be lost. What is not ASCII is written in units of UTF-16: nobody then has to know an encoding of the file.
func appendEscaped(to []byte, text string, isKey bool) []byte {
	for i, r := range text {
		switch {
		case r == ' ' && (isKey || i == 0), strings.ContainsRune(`\=:#!`, r):
			to = utf8.AppendRune(append(to, '\\'), r)
		case r == '\t':
			to = append(to, `\t`...)
		case r == '\n':
			to = append(to, `\n`...)
		case r == '\r':
			to = append(to, `\r`...)
		case r == '\f':
			to = append(to, `\f`...)
		case r < ' ' || r > '~':
			for _, unit := range utf16.AppendRune(nil, r) {
				to = fmt.Appendf(to, `\u%04X`, unit)
			}
		default:
			to = utf8.AppendRune(to, r)
		}
	}
	return to
}
