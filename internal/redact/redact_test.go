package redact_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"leasehold/internal/redact"
)

const secret = "s3cr3t-Zq7w"

// showsSecret tells whether a text has the secret in it, in any form that a printer may give it.
func showsSecret(text string) bool {
	numbers := strings.Trim(fmt.Sprintf("%d", []byte(secret)), "[]") // 115 51 99 ...
	text = strings.ToLower(text)
	for _, form := range []string{
		secret,
		hex.EncodeToString([]byte(secret)),
		fmt.Sprintf("% x", secret),
		fmt.Sprintf("%#v", []byte(secret))[len("[]byte{"):],
		base64.StdEncoding.EncodeToString([]byte(secret)),
		numbers,
		strings.ReplaceAll(numbers, " ", ","),
	} {
		if strings.Contains(text, strings.ToLower(form)) {
			return true
		}
	}
	return false
}

// TestShowsSecret: a test that looks for a secret must find one that is there.
func TestShowsSecret(t *testing.T) {
	data := []byte(secret)
	for _, text := range []string{
		fmt.Sprintf("%v", secret), fmt.Sprintf("%q", secret), fmt.Sprintf("%x", secret), fmt.Sprintf("% X", secret),
		fmt.Sprintf("%v", data), fmt.Sprintf("%#v", data), fmt.Sprintf("%X", data), fmt.Sprintf("%d", data),
		encoded(t, secret), encoded(t, data),
	} {
		if !showsSecret("{" + text + "}") {
			t.Errorf("%q was not recognised", text)
		}
	}
	if showsSecret("redacted") {
		t.Error("the mask was taken for the secret")
	}
}

// carriers returns the secret types themselves and what they are carried in.
func carriers() map[string]any {
	type holder struct {
		Text redact.String
		Data redact.Bytes
		List []redact.Bytes
		Map  map[redact.String]redact.String
		Next *redact.String

		// fmt prints unexported fields without asking their methods.
		text redact.String
		data redact.Bytes
		list []redact.Bytes
		set  map[redact.String]redact.String
	}
	text, data := redact.New(secret), redact.NewBytes([]byte(secret))
	list, set := []redact.Bytes{data}, map[redact.String]redact.String{text: text}
	inside := holder{text, data, list, set, &text, text, data, list, set}
	return map[string]any{
		"a String": text, "a pointer to String": &text, "a list of String": []redact.String{text},
		"a map by String": map[redact.String]int{text: 1}, "a map of String": map[string]redact.String{"key": text},
		"Bytes": data, "a pointer to Bytes": &data, "a list of Bytes": []redact.Bytes{data},
		"a struct": inside, "a pointer to a struct": &inside,
		"an error": fmt.Errorf("login: %w with %v and %s", errors.New("refused"), text, data),
	}
}

func TestNoVerbPrintsTheValue(t *testing.T) {
	for name, value := range carriers() {
		for _, verb := range strings.Fields("%v %+v %#v %s %q %x %d %+q %#q %X %#x %o %b %c %U %t %e %g %10.3s %-20v %06d %z") {
			if got := fmt.Sprintf(verb, value); showsSecret(got) {
				t.Errorf("%s of %s: %q shows the secret", verb, name, got)
			}
		}
		if got := fmt.Sprintf("% x", value); showsSecret(got) {
			t.Errorf("%% x of %s: %q shows the secret", name, got)
		}
		if got := fmt.Sprint(value) + fmt.Sprintln(value); showsSecret(got) {
			t.Errorf("Sprint of %s: %q shows the secret", name, got)
		}
	}
}

func TestVerbsPrintTheMask(t *testing.T) {
	for _, verb := range strings.Fields("%v %+v %#v %s %q %x %d") {
		for _, value := range []any{redact.New(secret), redact.NewBytes([]byte(secret))} {
			if got := fmt.Sprintf(verb, value); got != "redacted" {
				t.Errorf("%s of %T: %q, want %q", verb, value, got, "redacted")
			}
		}
	}
	if got := redact.New(secret).String() + redact.NewBytes([]byte(secret)).String(); got != "redactedredacted" {
		t.Errorf("String(): %q, want the mask twice", got)
	}
}

func TestNoLogShowsTheValue(t *testing.T) {
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
	} {
		var out bytes.Buffer
		log := slog.New(handler(&out))
		for carrier, value := range carriers() {
			out.Reset()
			log.Error("test", "value", value, slog.Group("group", "inner", value))
			log.With("value", value).Error("test")
			if got := out.String(); showsSecret(got) || !strings.Contains(got, "group") {
				t.Errorf("%s log of %s: %s; want a record without the secret", name, carrier, got)
			}
		}
	}
}

func TestJSONShowsTheMask(t *testing.T) {
	text, data := redact.New(secret), redact.NewBytes([]byte(secret))
	type holder struct {
		Text redact.String
		Data redact.Bytes `json:",omitempty"`
	}
	for _, row := range []struct {
		value any
		want  string
	}{
		{text, `"redacted"`},
		{&text, `"redacted"`},
		{data, `"redacted"`},
		{holder{text, data}, `{"Text":"redacted","Data":"redacted"}`},
		{map[redact.String]int{text: 1}, `{"redacted":1}`},
		{map[string]any{"a": text, "b": []any{data}}, `{"a":"redacted","b":["redacted"]}`},
	} {
		if got := encoded(t, row.value); got != row.want {
			t.Errorf("JSON of a %T: %s, want %s", row.value, got, row.want)
		}
	}
}

func TestRevealGivesTheValue(t *testing.T) {
	if got := redact.New(secret).Reveal(); got != secret {
		t.Errorf("String: Reveal() = %q, want %q", got, secret)
	}
	if got := redact.NewBytes([]byte(secret)).Reveal(); string(got) != secret {
		t.Errorf("Bytes: Reveal() = %q, want %q", got, secret)
	}
	if got := (redact.String{}).Reveal(); got != "" {
		t.Errorf("zero String: Reveal() = %q, want nothing", got)
	}
	if got := (redact.Bytes{}).Reveal(); got != nil {
		t.Errorf("zero Bytes: Reveal() = %q, want nil", got)
	}
}

func TestStringsCompareByValue(t *testing.T) {
	again := strings.Clone(secret)
	if redact.New(secret) != redact.New(again) {
		t.Error("two Strings of equal text differ")
	}
	if redact.New(secret) == redact.New(secret+"!") {
		t.Error("two Strings of different texts are equal")
	}
	if seen := map[redact.String]bool{redact.New(secret): true}; !seen[redact.New(again)] {
		t.Error("a map by String does not find an equal one")
	}
	if redact.New("") != (redact.String{}) {
		t.Error("a String without text is not the zero String")
	}
}

func TestIsZero(t *testing.T) {
	for _, row := range []struct {
		value redact.String
		want  bool
	}{{redact.String{}, true}, {redact.New(""), true}, {redact.New(secret), false}} {
		if got := row.value.IsZero(); got != row.want {
			t.Errorf("IsZero() of a text of %d bytes = %v, want %v", len(row.value.Reveal()), got, row.want)
		}
	}
}

func encoded(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
