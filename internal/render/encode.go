package render

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // templates ask for MD5 by its name
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"iter"
	"reflect"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// The libraries' own errors quote what they read or write. Those of these functions say what is wrong instead.

// decoder returns a function base64*Decode.
func decoder(function string, encoding *base64.Encoding) func(string) (string, error) {
	return func(text string) (string, error) {
		decoded, err := encoding.DecodeString(text)
		if err != nil {
			return "", fault(function + ": the text is not base64 of that alphabet, with padding")
		}
		return string(decoded), nil
	}
}

// encoder returns a function base64*Encode.
func (m *machine) encoder(encoding *base64.Encoding) func(string) (string, error) {
	return func(text string) (string, error) {
		if err := m.run.room(encoding.EncodedLen(len(text))); err != nil {
			return "", err
		}
		return encoding.EncodeToString([]byte(text)), nil
	}
}

func sha256Hex(text string) (string, error) {
	digest := sha256.Sum256([]byte(text))
	return hex.EncodeToString(digest[:]), nil
}

func md5sum(text string) (string, error) {
	digest := md5.Sum([]byte(text)) //nolint:gosec // templates ask for MD5 by its name
	return hex.EncodeToString(digest[:]), nil
}

func hmacSHA256Hex(message, key string) (string, error) {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(message))
	return hex.EncodeToString(mac.Sum(nil)), nil
}

// The functions parse* make of an empty text what is empty or zero.

func parseBool(text string) (bool, error) {
	value, err := strconv.ParseBool(text)
	if err != nil && text != "" {
		return false, fault("parseBool: the text is none of true, false, t, f, 1 and 0")
	}
	return value, nil
}

func parseFloat(text string) (float64, error) {
	value, err := strconv.ParseFloat(text, 64)
	switch {
	case text == "":
		return 0, nil
	case errors.Is(err, strconv.ErrRange):
		return 0, fault("parseFloat: the number is too large for 64 bits")
	case err != nil:
		return 0, fault("parseFloat: the text is no number")
	}
	return value, nil
}

func parseInt(text string) (int64, error) {
	value, err := strconv.ParseInt(text, 10, 64)
	switch {
	case text == "":
		return 0, nil
	case errors.Is(err, strconv.ErrRange):
		return 0, fault("parseInt: the number does not fit into 64 bits")
	case err != nil:
		return 0, fault("parseInt: the text is no decimal integer")
	}
	return value, nil
}

func parseUint(text string) (uint64, error) {
	value, err := strconv.ParseUint(text, 10, 64)
	switch {
	case text == "":
		return 0, nil
	case errors.Is(err, strconv.ErrRange):
		return 0, fault("parseUint: the number does not fit into 64 bits")
	case err != nil:
		return 0, fault("parseUint: the text is no decimal integer without a sign")
	}
	return value, nil
}

// sizeOfValue is about what a value takes that is parsed, with its place in a list or a map and beside its own bytes.
const sizeOfValue = 64

// parseJSON makes values of JSON. Its numbers become float64, unlike those in Vault's answers.
func (m *machine) parseJSON(text string) (any, error) {
	if text == "" {
		return map[string]any{}, nil
	}
	values := 1 + strings.Count(text, ",") + strings.Count(text, "[") + strings.Count(text, "{")
	if err := m.run.room(len(text) + sizeOfValue*values); err != nil {
		return nil, err
	}
	var value any
	err := json.Unmarshal([]byte(text), &value)
	if _, wrong := errors.AsType[*json.UnmarshalTypeError](err); wrong {
		return nil, fault("parseJSON: a number in the text is too large for 64 bits")
	}
	if err != nil {
		return nil, fault("parseJSON: the text is not JSON")
	}
	return value, nil
}

// jsonWriter returns a function toJSON*: of an escaping one, <, > and & can stand in HTML.
func (m *machine) jsonWriter(name string, escaped, pretty bool) func(any) (string, error) {
	return func(value any) (string, error) {
		var written bytes.Buffer
		encoder := json.NewEncoder(&written)
		encoder.SetEscapeHTML(escaped)
		err := encoder.Encode(value)
		if unsupported, ok := errors.AsType[*json.UnsupportedTypeError](err); ok {
			if unsupported.Type.Kind() == reflect.Map {
				return "", fault(name + ": JSON has no maps like those that parseYAML makes: use toYAML, or parseJSON")
			}
			return "", fault(name + ": JSON has nothing for the type " + unsupported.Type.String())
		}
		if err != nil {
			return "", fault(name + ": a number or a text in the value has no form in JSON")
		}
		compact := bytes.TrimSuffix(written.Bytes(), []byte("\n"))
		size := len(compact)
		if pretty {
			size = indentedSize(compact)
		}
		if err := m.run.room(size); err != nil {
			return "", err
		}
		if !pretty {
			return string(compact), nil
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, compact, "", "  "); err != nil { // what was encoded can be indented
			return "", fault(name + ": the value cannot be indented")
		}
		return indented.String(), nil
	}
}

// indentedSize is about how long JSON gets when it is indented, and never less: with deep nesting far more than it was.
func indentedSize(compact []byte) int {
	size, depth := len(compact), 0
	for c := range structure(compact) {
		switch c {
		case '{', '[':
			depth++
			size += 1 + 2*depth
		case '}', ']':
			depth--
			size += 1 + 2*depth
		case ',':
			size += 1 + 2*depth
		case ':':
			size++
		}
	}
	return size
}

// structure yields the characters of JSON that are not within its texts.
func structure(written []byte) iter.Seq[byte] {
	return func(yield func(byte) bool) {
		inText, escaped := false, false
		for _, c := range written {
			switch {
			case inText:
				inText = escaped || c != '"'
				escaped = c == '\\' && !escaped
			case c == '"':
				inText = true
			case !yield(c):
				return
			}
		}
	}
}

// sink is what an encoder writes to: it asks for room as it gets longer.
type sink struct {
	room func(int) error
	text bytes.Buffer
	err  error
}

// Write makes the sink an io.Writer.
func (s *sink) Write(part []byte) (int, error) {
	if s.err = s.room(len(part)); s.err != nil {
		return 0, s.err
	}
	return s.text.Write(part)
}

// written returns what was written, or why it could not be.
func (s *sink) written(function string, err error) (string, error) {
	switch {
	case s.err != nil:
		return "", s.err
	case err != nil:
		return "", fault(function)
	}
	return string(bytes.TrimSpace(s.text.Bytes())), nil
}

func (m *machine) toTOML(value any) (string, error) {
	const unfit = "toTOML: the value cannot be written as TOML: it takes a map with texts as keys, and lists without null"
	if value == nil { // of which the package panics
		return "", fault(unfit)
	}
	out := sink{room: m.run.room}
	return out.written(unfit, toml.NewEncoder(&out).Encode(value))
}
