package render

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestBase64(t *testing.T) {
	check(t, []row{
		{template: `{{ "a?>b" | base64Encode }} {{ "a?>b" | base64URLEncode }} {{ base64Encode "" }}`, want: "YT8+Yg== YT8-Yg== "},
		{template: `{{ "YT8+Yg==" | base64Decode }} {{ "YT8-Yg==" | base64URLDecode }} {{ base64Decode "" }}`, want: "a?>b a?>b "},
		{template: `{{ base64Decode "YT8+\nYg==\n" }}|{{ base64Decode "/w==" }}`, want: "a?>b|\xff"},
		{template: `{{ base64Decode .canary }}`, fails: "base64Decode: the text is not base64"},
		{template: `{{ base64URLDecode "YT8+Yg==" }}`, fails: "base64URLDecode: the text is not base64"},
		{template: `{{ base64Decode "YT8+Yg" }}`, fails: "base64Decode: the text is not base64"},
		{template: `{{ range loop 30 }}{{ $x := base64Encode $.long }}{{ end }}`, fails: "builds more than 32 MiB"},
	})
}

func TestHashes(t *testing.T) {
	check(t, []row{
		{template: `{{ sha256Hex "abc" }}`, want: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{template: `{{ md5sum "abc" }} {{ "" | md5sum }}`, want: "900150983cd24fb0d6963f7d28e17f72 d41d8cd98f00b204e9800998ecf8427e"},
		{template: `{{ hmacSHA256Hex "what do ya want for nothing?" "Jefe" }}`, want: "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{template: `{{ sha256Hex 1 }}`, fails: "expected string"},
	})
}

func TestParseScalars(t *testing.T) {
	check(t, []row{
		{template: `{{ parseBool "true" }} {{ parseBool "" }} {{ parseBool "F" }} {{ "1" | parseBool }}`, want: "true false false true"},
		{template: `{{ parseFloat "1.50" }} {{ parseFloat "" }} {{ parseFloat "1e3" }} {{ parseFloat "NaN" }}`, want: "1.5 0 1000 NaN"},
		{template: `{{ parseInt "-42" }} {{ parseInt "" }} {{ parseInt "007" }}`, want: "-42 0 7"},
		{template: `{{ parseUint "42" }} {{ parseUint "" }} {{ parseUint "18446744073709551615" }}`, want: "42 0 18446744073709551615"},
		{template: `{{ printf "%T %T %T" (parseInt "1") (parseUint "1") (parseFloat "1") }}`, want: "int64 uint64 float64"},
		{template: `{{ parseBool .canary }}`, fails: "parseBool: the text is none of true"},
		{template: `{{ parseBool "yes" }}`, fails: "parseBool: the text is none of true"},
		{template: `{{ parseFloat .canary }}`, fails: "parseFloat: the text is no number"},
		{template: `{{ parseFloat "1e999" }}`, fails: "parseFloat: the number is too large"},
		{template: `{{ parseInt "1.0" }}`, fails: "parseInt: the text is no decimal integer"},
		{template: `{{ parseInt "0x10" }}`, fails: "parseInt: the text is no decimal integer"},
		{template: `{{ parseInt "9223372036854775808" }}`, fails: "parseInt: the number does not fit"},
		{template: `{{ parseUint "-1" }}`, fails: "parseUint: the text is no decimal integer"},
		{template: `{{ parseUint "18446744073709551616" }}`, fails: "parseUint: the number does not fit"},
		{template: `{{ parseInt .number }}`, fails: "wrong type for value"},
	})
}

func TestParseJSON(t *testing.T) {
	check(t, []row{
		{template: `{{ with parseJSON "{\"a\": [1, 2.5, \"x\", null, true, 1e21]}" }}{{ .a }}{{ end }}`, want: "[1 2.5 x <nil> true 1e+21]"},
		{template: `{{ parseJSON "" }} {{ parseJSON "1" }} {{ parseJSON "\"x\"" }} {{ parseJSON "[]" }}`, want: "map[] 1 x []"},
		{template: `{{ printf "%T" (parseJSON "1") }} {{ len (parseJSON "") }}`, want: "float64 0"},
		{template: `{{ parseJSON .canary }}`, fails: "parseJSON: the text is not JSON"},
		{template: `{{ parseJSON "{} {}" }}`, fails: "parseJSON: the text is not JSON"},
		{template: `{{ parseJSON "1e999" }}`, fails: "parseJSON: a number in the text is too large"},
		{template: `{{ parseJSON (replaceAll "b" "," .long) }}`, fails: "builds more than 32 MiB"},
	})
}

func TestToJSON(t *testing.T) {
	check(t, []row{
		{template: `{{ parseJSON "{\"b\": [1, {}, []], \"a\": \"<&>\\u2028\"}" | toJSON }}`, want: `{"a":"\u003c\u0026\u003e\u2028","b":[1,{},[]]}`},
		{template: `{{ parseJSON "{\"b\": [1, {}, []], \"a\": \"<&>\\u2028\"}" | toUnescapedJSON }}`, want: `{"a":"<&>\u2028","b":[1,{},[]]}`},
		{template: `{{ parseJSON "{\"b\": [1, {}, []], \"a\": \"<,:[\\\"\\\\\"}" | toJSONPretty }}`, want: "{\n  \"a\": \"\\u003c,:[\\\"\\\\\",\n  \"b\": [\n    1,\n    {},\n    []\n  ]\n}"},
		{template: `{{ parseJSON "{\"a\": \"<\"}" | toUnescapedJSONPretty }}`, want: "{\n  \"a\": \"<\"\n}"},
		{template: `{{ toJSON nil }} {{ toJSON "a\n" }} {{ toJSON .number }} {{ toJSON (split "," "a,b") }} {{ toJSONPretty 1 }}`, want: `null "a\n" 5432 ["a","b"] 1`},
		{template: `{{ toJSON "\xff" }} {{ toJSON (parseFloat "1e21") }} {{ toJSON scratch }}`, want: `"\ufffd" 1e+21 {}`},
		{template: `{{ toJSON (parseYAML (print .canary ": 1")) }}`, fails: "toJSON: JSON has no maps like those that parseYAML makes"},
		{template: `{{ toJSONPretty (loop 3) }}`, fails: "toJSONPretty: JSON has nothing for the type render.queue"},
		{template: `{{ toUnescapedJSON (parseFloat "NaN") }}`, fails: "toUnescapedJSON: a number or a text"},
	})
}

// Indentation makes a text of deep nesting as long as the square of what it was.
func TestToJSONPrettyHasBounds(t *testing.T) {
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	if _, err := newBench(nil).execute(`{{ $x := toJSONPretty (parseJSON .) }}`, deep); err == nil || !strings.Contains(err.Error(), "builds more than 32 MiB") {
		t.Errorf("got error %v, want one of the budget", err)
	}
}

func FuzzIndentedSize(f *testing.F) {
	for _, seed := range []string{`{"a":[1,{},[],"\\\"{[,:"],"b":{"c":null}}`, `[]`, `""`, `[[[[1,2],3]]]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var compact, indented bytes.Buffer
		if json.Compact(&compact, []byte(text)) != nil || json.Indent(&indented, compact.Bytes(), "", "  ") != nil {
			return
		}
		if got, want := indentedSize(compact.Bytes()), indented.Len(); got < want {
			t.Errorf("%q: got size %d, want at least %d", text, got, want)
		}
	})
}

func TestToTOML(t *testing.T) {
	check(t, []row{
		{template: `{{ parseJSON "{\"b\": {\"c\": [1, 2], \"d\": {\"e\": \"x\\\"\"}}, \"a\": true, \"l\": [{\"m\": 1}]}" | toTOML }}`, want: "a = true\n\n[b]\n  c = [1.0, 2.0]\n  [b.d]\n    e = \"x\\\"\"\n\n[[l]]\n  m = 1.0"},
		{template: `{{ parseJSON "{}" | toTOML }}`, want: ""},
		{template: `{{ toTOML nil }}`, fails: "toTOML: the value cannot be written as TOML"},
		{template: `{{ parseJSON "{\"a\": [1, null]}" | toTOML }}`, fails: "toTOML: the value cannot be written as TOML"},
		{template: `{{ parseYAML "1: a" | toTOML }}`, fails: "toTOML: the value cannot be written as TOML"},
	})
}

// The encoders that write bit by bit stop when there is no more room.
func TestEncodersHaveBounds(t *testing.T) {
	value := map[string]any{}
	for range 400 {
		value = map[string]any{"a": strings.Repeat("x\n", 1000), "m": value}
	}
	for name, encode := range map[string]func(*machine) error{
		"toYAML": func(m *machine) error { _, err := m.toYAML(value); return err },
		"toTOML": func(m *machine) error { _, err := m.toTOML(value); return err },
		"toJSON": func(m *machine) error { _, err := m.jsonWriter("toJSONPretty", true, true)(value); return err },
	} {
		m := newBench(nil).machine
		if err := m.run.room(mostBuilt - 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := encode(m); err == nil || !strings.Contains(err.Error(), "builds more than 32 MiB") {
			t.Errorf("%s: got error %v, want one of the budget", name, err)
		}
	}
}
