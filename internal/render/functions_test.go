package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// These tests call the functions as templates do, but without the engine's guard around them: what they promise they keep
// alone.

// bench is a machine under test, and what it was asked for.
type bench struct {
	*machine
	answers map[string]string // Vault's data by path, as JSON
	asked   []spec.Source
}

func newBench(answers map[string]string) *bench {
	b := &bench{answers: answers}
	b.machine = testMachine(execution{
		pod: spec.Pod{Namespace: "shop", Name: "web-0", UID: "4711", ServiceAccount: "web"},
		at:  time.Date(2024, 2, 29, 13, 4, 5, 678, time.FixedZone("", 3600)),
		ask: b.read,
	})
	return b
}

func (b *bench) read(source spec.Source) (answer, error) {
	b.asked = append(b.asked, source)
	data, found := b.answers[source.Path]
	if !found {
		return answer{}, &unreadError{source, errors.New("nothing found"), false}
	}
	return decode(client.Grant{
		Source: source, Data: redact.NewBytes([]byte(data)), LeaseID: "lease/1", LeaseDuration: 90 * time.Second, Renewable: true,
	})
}

// execute executes a template, with a value as its dot.
func (b *bench) execute(text string, dot any) (string, error) {
	parsed, err := template.New("").Funcs(b.functions()).Parse(text)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = parsed.Execute(&out, dot)
	return out.String(), err
}

// row is a template and what it writes, or a part of its error.
type row struct{ template, want, fails string }

// check executes each template with a machine of its own.
func check(t *testing.T, rows []row) {
	t.Helper()
	dot := map[string]any{"canary": canary, "number": json.Number("5432"), "long": strings.Repeat("ab", 1<<19)}
	for _, r := range rows {
		got, err := newBench(nil).execute(r.template, dot)
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the error shows a value: %v", r.template, err)
		}
		switch {
		case r.fails == "" && (err != nil || got != r.want):
			t.Errorf("%s: got %.200q, error %v; want %q", r.template, got, err, r.want)
		case r.fails != "" && (err == nil || !strings.Contains(err.Error(), r.fails)):
			t.Errorf("%s: got %.200q, error %v; want an error with %q", r.template, got, err, r.fails)
		}
	}
}

// Every function of consul-template 0.41 is either there or refused with a reason.
func TestFunctionsOfConsulTemplate(t *testing.T) {
	const all = `datacenters exportedServices file key keyExists keyOrDefault ls safeLs node nodes partitions peerings secret
		secrets service connect services tree safeTree caRoots caLeaf pkiCert nomadServices nomadService nomadVarList
		nomadVarListSafe nomadVar nomadVarExists scratch base64Decode base64Encode base64URLDecode base64URLEncode byKey byPort
		byTag contains containsAll containsAny containsNone containsNotAll env mustEnv envOrDefault executeTemplate explode
		explodeMap mergeMap mergeMapWithOverride in indent loop join trim trimPrefix trimSuffix trimSpace parseBool parseFloat
		parseInt parseJSON parseUint parseYAML plugin regexReplaceAll regexMatch replaceAll sha256Hex md5sum hmacSHA256Hex
		timestamp toLower toJSON toJSONPretty toUnescapedJSON toUnescapedJSONPretty toTitle toTOML toUpper toYAML split splitToMap
		byMeta sockaddr writeToFile add subtract multiply divide modulo minimum maximum spew_dump spew_printf spew_sdump
		spew_sprintf`
	available := newBench(nil).functions()
	for _, name := range strings.Fields(all) {
		_, is := available[name]
		if reason, isNot := unavailable[name]; is == isNot || isNot && reason == "" {
			t.Errorf("function %s: available %t, unavailable %t with the reason %q; want one of them", name, is, isNot, reason)
		}
	}
	known := slices.Sorted(maps.Keys(available))
	known = append(known, slices.Collect(maps.Keys(unavailable))...)
	for _, name := range known {
		if !slices.Contains(strings.Fields(all), name) {
			t.Errorf("function %s is not one of consul-template", name)
		}
	}
}

// What a function says about its arguments never shows them, whatever they are.
func TestErrorsShowNoValues(t *testing.T) {
	b := newBench(nil)
	failures := 0
	for name := range b.functions() {
		for _, arguments := range []string{
			"", ".secret", ".secret .secret", ".secret .secret .secret", ".list", ".list .list", ".map", ".map .map", ".map .secret",
			".number", ".number .number", ".number .secret", "1 .secret", ".secret 1", "0 1", "-1 .secret", ".nested", ".nested .nested",
			`"(" .secret .secret`, `"(" .secret`, ".key", ".fraction", ".yaml", ".float .float",
		} {
			_, err := b.execute(fmt.Sprintf("{{ %s %s }}", name, arguments), map[string]any{
				"secret": "(\x00" + canary + "=" + canary + "\t[{%zz",
				"key":    map[any]any{canary: canary},
				"list":   []any{canary, []any{canary}},
				"map":    map[string]any{canary: canary, canary + "/" + canary: canary},
				"nested": map[string]any{canary: map[string]any{canary: make(chan int)}},
				"number": json.Number(canary), "fraction": "1e9999" + canary, "yaml": "*" + canary,
				"float": 1e300,
			})
			if err == nil {
				continue
			}
			failures++
			if strings.Contains(ownWords(err), canary) {
				t.Errorf("%s %s: the error shows a value: %v", name, arguments, err)
			}
		}
	}
	if failures < 100 {
		t.Errorf("got %d failures, want many more: the arguments are too tame", failures)
	}
}

// ownWords is what our own code says in an error: package text/template quotes values where it refuses arguments itself, which
// is for the engine to replace.
func ownWords(err error) string {
	if f := fault(""); errors.As(err, &f) {
		return f.Error()
	}
	if unread := (*unreadError)(nil); errors.As(err, &unread) {
		return unread.err.Error()
	}
	return ""
}
