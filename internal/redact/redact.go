// Package redact holds strings that cannot be printed.
//
// A token, a service account JWT, a private key or a secret value travels through Leasehold as a [String] or as
// [Bytes]. Whatever prints, formats, logs or encodes one gets the word "redacted"; only Reveal gives the value, so a
// search for Reveal shows every place where a secret leaves our hands.
package redact

import (
	"fmt"
	"io"
	"log/slog"
	"unique"
)

const mask = "redacted"

// Both types keep their value behind pointers. When fmt prints a struct it does not call the methods of its unexported
// fields, so there Format has no say. Of a pointer in a field it prints the address; only where the verb is wrong for a
// pointer it looks behind one to a slice, but never behind two.

// String is a secret text. Two of them compare equal when their values do, so a String may be part of a map key.
type String struct{ value unique.Handle[string] }

// New wraps a secret text.
func New(value string) String {
	if value == "" {
		return String{}
	}
	return String{unique.Make(value)}
}

// Reveal returns the secret text, for the one reader who is meant to have it.
func (s String) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.value.Value()
}

// IsZero tells whether there is no text at all.
func (s String) IsZero() bool { return s == String{} }

// Format prints the mask, whatever the verb.
func (s String) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, mask) }

// String returns the mask.
func (s String) String() string { return mask }

// LogValue logs the mask.
func (s String) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalText encodes the mask (JSON, YAML and text encoders ask for this).
func (s String) MarshalText() ([]byte, error) { return []byte(mask), nil }

// Bytes is secret data.
type Bytes struct{ value **[]byte }

// NewBytes wraps secret data. It keeps the slice: the caller gives it away.
func NewBytes(value []byte) Bytes {
	inner := &value
	return Bytes{&inner}
}

// Reveal returns the secret data. It must not be changed.
func (b Bytes) Reveal() []byte {
	if b.value == nil {
		return nil
	}
	return **b.value
}

// Format prints the mask, whatever the verb.
func (b Bytes) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, mask) }

// String returns the mask.
func (b Bytes) String() string { return mask }

// LogValue logs the mask.
func (b Bytes) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalText encodes the mask.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(mask), nil }
