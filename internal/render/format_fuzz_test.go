package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"unicode/utf16"

	"leasehold/internal/spec"
)

// secrets are the data of answers, as seeds.
var secrets = []string{
	`{}`, `{"a":"b","B":null,"c":1e3,"d":[true,{"e":""}]}`, `{"a":"'\"\\$` + "`" + `!#\n\r\t\f\b \u0000\u007f\u0085\u00a0\u2028\ufeff\ud83d\ude00"}`,
	`{" a ":" b ","=":":","#!":"\\","\\":"\\u0041","a\nb":"c\n","é":"ü","h:i=j":"k"}`, `{"a":"' '","b":"'","c":"''\\''","d":"\\'","e":"$(exit 1)"}`,
	`{"data":{"a":"b"},"metadata":{"version":1}}`, `{"ttl":5,"last_vault_rotation":"x"}`, `{"ttl":5,"last_vault_rotation":null}`,
	`{"a":"\\","b":"\\\n","c":"\n\\","d":"\n","e":" \n "}`,
}

func seed(f *testing.F) {
	for _, data := range secrets {
		f.Add(data)
	}
}

// written returns a file in a format, with the data that it is made of; false when the data is not an answer's.
func written(t *testing.T, format spec.Format, data string) (contents []byte, decoded map[string]any, ok bool) {
	t.Helper()
	decoder := numbersAsTheyAre(strings.NewReader(data))
	if decoder.Decode(&decoded) != nil || decoded == nil || decoder.More() {
		return nil, nil, false
	}
	marked := mustJSON(t, mark(decoded))
	if _, err := one(spec.Object{Format: format}, string(marked)); err != nil && strings.Contains(err.Error(), canary) {
		t.Errorf("the error shows a value: %v", err)
	}
	contents, err := one(spec.Object{Format: format}, string(mustJSON(t, decoded)))
	return contents, decoded, err == nil
}

// numbersAsTheyAre reads JSON whose numbers keep their digits.
func numbersAsTheyAre(from io.Reader) *json.Decoder {
	decoder := json.NewDecoder(from)
	decoder.UseNumber()
	return decoder
}

func mustJSON(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// FuzzMap compares with what the standard library makes of a template like the injector's own.
func FuzzMap(f *testing.F) {
	seed(f)
	injector := template.Must(template.New("").Parse("{{ range $k, $v := . }}{{ $k }}: {{ $v }}\n{{ end }}"))
	f.Fuzz(func(t *testing.T, data string) {
		got, decoded, ok := written(t, spec.FormatMap, data)
		if !ok {
			return
		}
		var want bytes.Buffer
		if err := injector.Execute(&want, decoded); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("got  %q\nwant %q", got, want.Bytes())
		}
	})
}

// FuzzData reads the JSON.
func FuzzData(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data string) {
		got, want, ok := written(t, spec.FormatData, data)
		if !ok {
			return
		}
		var read map[string]any
		if err := numbersAsTheyAre(bytes.NewReader(got)).Decode(&read); err != nil || !reflect.DeepEqual(read, want) || !bytes.HasSuffix(got, []byte("}\n")) {
			t.Errorf("%q is %+v, %v; want %+v", got, read, err, want)
		}
	})
}

// FuzzJSON reads the whole answer. Its data are all there, but for a remaining time.
func FuzzJSON(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data string) {
		got, want, ok := written(t, spec.FormatJSON, data)
		if !ok {
			return
		}
		dropRemaining(want)
		var read struct {
			Data map[string]any `json:"data"`
		}
		if err := numbersAsTheyAre(bytes.NewReader(got)).Decode(&read); err != nil || !reflect.DeepEqual(read.Data, want) {
			t.Errorf("%q has data %+v, %v; want %+v", got, read.Data, err, want)
		}
	})
}

// dropRemaining takes the remaining time of a static role's password away, if data are one's.
func dropRemaining(data map[string]any) {
	if _, ok := data["ttl"].(json.Number); ok && data["last_vault_rotation"] != nil {
		delete(data, "ttl")
	}
}

// asTexts returns what a file of texts must hold: of KV version 2 the secret's own fields, and no remaining time.
func asTexts(t *testing.T, data map[string]any) map[string]string {
	t.Helper()
	fields := maps.Clone(data)
	if inner, ok := data["data"].(map[string]any); ok {
		fields = inner
	} else {
		dropRemaining(fields)
	}
	texts := make(map[string]string)
	for key, value := range fields {
		switch value := value.(type) {
		case nil:
			texts[key] = ""
		case string:
			texts[key] = value
		default:
			texts[key] = string(mustJSON(t, value))
		}
	}
	return texts
}

// FuzzEnv sources the files in a shell, all fields of an answer at once.
func FuzzEnv(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data string) {
		var fields map[string]any
		if json.Unmarshal([]byte(data), &fields) != nil {
			return
		}
		// Some names mean something to the shell itself, and some are none: these fields have others.
		renamed := make(map[string]any)
		for i, key := range slices.Sorted(maps.Keys(fields)) {
			renamed["leasehold_"+strconv.Itoa(i)] = fields[key]
		}
		got, decoded, ok := written(t, spec.FormatEnv, string(mustJSON(t, renamed)))
		if !ok {
			if !strings.Contains(data, `\u0000`) {
				t.Errorf("%s is refused", data)
			}
			return
		}
		want := asTexts(t, decoded)
		if read := sourced(t, got, slices.Sorted(maps.Keys(want))); !maps.Equal(read, want) {
			t.Errorf("a shell reads %q\nof %q\nwant %q", read, got, want)
		}
	})
}

// TestEnvOfAllBytes has each byte that a text can begin with in a variable, beside others.
func TestEnvOfAllBytes(t *testing.T) {
	want := make(map[string]string)
	for i := rune(1); i < 0x180; i++ {
		want[fmt.Sprintf("V%d", i)] = string(i) + "a" + string(i) + string(i)
	}
	got, err := one(spec.Object{Format: spec.FormatEnv}, string(mustJSON(t, want)))
	if err != nil {
		t.Fatal(err)
	}
	if read := sourced(t, got, slices.Sorted(maps.Keys(want))); !maps.Equal(read, want) {
		t.Errorf("a shell reads %q\nof %q\nwant %q", read, got, want)
	}
}

// sourced returns the variables that a shell has when it has sourced a file.
func sourced(t *testing.T, contents []byte, names []string) map[string]string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, contents, 0o600); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	script.WriteString(`set -eu; . "$1"`)
	for _, name := range names {
		script.WriteString(`; printf '%s\0' "$` + name + `"`)
	}
	shell := exec.CommandContext(t.Context(), "/bin/sh", "-c", script.String(), "sh", file)
	shell.Env = []string{}
	printed, err := shell.Output()
	if err != nil {
		t.Fatalf("%v of %q", err, contents)
	}
	read := make(map[string]string)
	values := strings.Split(string(printed), "\x00")
	for i, name := range names {
		if i < len(values) {
			read[name] = values[i]
		}
	}
	return read
}

// FuzzProperties reads the files by the rules of java.util.Properties.load.
func FuzzProperties(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data string) {
		got, decoded, ok := written(t, spec.FormatProperties, data)
		if !ok {
			return
		}
		if i := bytes.IndexFunc(got, func(r rune) bool { return r > '~' || (r < ' ' && r != '\n') }); i >= 0 {
			t.Errorf("%q is not plain ASCII", got)
		}
		if read, want := loaded(t, string(got)), asTexts(t, decoded); !maps.Equal(read, want) {
			t.Errorf("got %q\nby %q\nwant %q", read, got, want)
		}
	})
}

// loaded reads properties as the documentation of load says: lines that end with an odd number of backslashes go on in the
// next one, lines without anything and those that begin with # or ! say nothing, a key ends at the first = or : or blank
// that no backslash stands before, and blanks around that sign and before the key count for nothing.
func loaded(t *testing.T, text string) map[string]string {
	t.Helper()
	const blanks = " \t\f"
	properties := make(map[string]string)
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := 0; i < len(lines); i++ {
		line := strings.TrimLeft(lines[i], blanks)
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		for (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1 && i+1 < len(lines) {
			i++
			line = line[:len(line)-1] + strings.TrimLeft(lines[i], blanks)
		}
		end := 0
		for end < len(line) && !strings.ContainsRune(blanks+"=:", rune(line[end])) {
			if line[end] == '\\' {
				end++
			}
			end++
		}
		end = min(end, len(line))
		value := strings.TrimLeft(line[end:], blanks)
		if value != "" && (value[0] == '=' || value[0] == ':') {
			value = strings.TrimLeft(value[1:], blanks)
		}
		key := unescaped(t, line[:end])
		if _, double := properties[key]; double {
			t.Errorf("key %q stands twice in %q", key, text)
		}
		properties[key] = unescaped(t, value)
	}
	return properties
}

func unescaped(t *testing.T, text string) string {
	t.Helper()
	var units []uint16
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			units = append(units, uint16(text[i]))
			continue
		}
		i++
		switch text[i] {
		case 't':
			units = append(units, '\t')
		case 'n':
			units = append(units, '\n')
		case 'r':
			units = append(units, '\r')
		case 'f':
			units = append(units, '\f')
		case 'u':
			unit, err := strconv.ParseUint(text[min(i+1, len(text)):min(i+5, len(text))], 16, 16)
			if err != nil {
				t.Fatalf("malformed \\uxxxx in %q", text)
			}
			units = append(units, uint16(unit))
			i += 4
		default:
			units = append(units, uint16(text[i]))
		}
	}
	return string(utf16.Decode(units))
}
