package render

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// Sources that differ in anything are requests of their own, and each object gets the answer to its own.
func TestDistinctSources(t *testing.T) {
	sources := []spec.Source{
		{Method: "GET", Path: "p"},
		{Method: "PUT", Path: "p"},
		{Method: "PUT", Path: "p", Args: `{"a":"1"}`},
		{Method: "GET", Path: "q"},
		{Method: "GET", Path: "p", Lenient: true},
	}
	var objects []spec.Object
	for i, source := range sources {
		objects = append(objects, spec.Object{Name: fmt.Sprint(i), Source: source, Key: "said", Encoding: spec.UTF8})
	}
	said := func(s spec.Source) string { return fmt.Sprintf("%s %s %s %t", s.Method, s.Path, s.Args, s.Lenient) }
	var reads atomic.Int32
	files, made, err := New().Files(Volume{Objects: objects, Read: func(s spec.Source) (client.Grant, error) {
		reads.Add(1)
		return grantOf(s, fmt.Sprintf(`{"said":%q}`, said(s))), nil
	}})
	if err != nil || int(reads.Load()) != len(sources) || len(made) != len(sources) {
		t.Fatalf("got %d reads, %d sources and error %v; want one for each of %d", reads.Load(), len(made), err, len(sources))
	}
	for i, f := range files {
		if got := string(f.Contents); got != said(sources[i]) {
			t.Errorf("file %s: got the answer to %q, want that to %q", f.Path, got, said(sources[i]))
		}
	}
}

// A template may ask for paths that it makes up as it goes, but for no more than a volume may hold.
func TestMostSources(t *testing.T) {
	for _, row := range []struct {
		asks int
		want string // in the error; "" for none
	}{
		{maxSources, ""},
		{maxSources + 1, "the volume's files need more than 100 requests to Vault: split the class in two"},
		{5 * maxSources, "the volume's files need more than 100 requests to Vault: split the class in two"},
	} {
		text := fmt.Sprintf(`{{ range $i := loop %d }}{{ (secret (printf "kv/%%d" $i)).Data.k }}{{ end }}`, row.asks)
		var reads atomic.Int32
		_, _, err := New().Files(Volume{
			Objects: []spec.Object{{Name: "o", Template: spec.Template{Text: text}}},
			Read: func(s spec.Source) (client.Grant, error) {
				reads.Add(1)
				return grantOf(s, `{"k":"v"}`), nil
			},
		})
		switch failure := (*Error)(nil); {
		case reads.Load() > maxSources:
			t.Errorf("%d asked for: Vault was asked for %d, want at most %d", row.asks, reads.Load(), maxSources)
		case row.want == "" && err != nil:
			t.Errorf("%d asked for: got error %v", row.asks, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || !errors.As(err, &failure) || !failure.Unfit):
			t.Errorf("%d asked for: got error %v, want an unfit one with %q", row.asks, err, row.want)
		}
	}
}

// TestDecodedSizeIsNeverTooLow decodes what takes much more memory than its text, and compares it with the estimate.
func TestDecodedSizeIsNeverTooLow(t *testing.T) {
	const most = 10                    // how many times as much the estimate may be
	list := func(each string) string { // of half a MiB
		return `{"l":[` + strings.Repeat(each+",", 1<<19/len(each)) + each + `]}`
	}
	var pairs strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&pairs, `,"%d":%d`, i, i)
	}
	for name, text := range map[string]string{
		"maps":           list(`{}`),
		"maps of one":    list(`{"":0}`),
		"maps of three":  list(`{"a":0, "b":"c", "d":null}`),
		"maps of nine":   list(`{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0}`),
		"lists":          list(`[]`),
		"lists of one":   list(`[0]`),
		"lists of five":  list(`[0,0,0,0,0]`),
		"nested lists":   list(`[[[[0]]]]`),
		"numbers":        list(`0`),
		"nothing":        list(`null`),
		"texts":          list(`"text"`),
		"texts with all": list(`"{[\":,\\"`),
		"maps in a map":  list(`{"m":{"":{}}}`),
		"one key again":  list("{" + strings.Repeat(`"k":1,`, 20) + `"k":1}`),
		"one large map":  "{" + pairs.String()[1:] + "}", // which has had smaller ones before
	} {
		t.Run(name, func(t *testing.T) {
			grant := grantOf(get("p"), text)
			before := live()
			a, err := decode(grant)
			if err != nil {
				t.Fatal(err)
			}
			took := live() - before
			runtime.KeepAlive(a)
			if estimate := sizeDecoded(grant.Data.Reveal()); estimate < int(took) || estimate > most*int(took) {
				t.Errorf("%d bytes of JSON take %d; the estimate is %d, want that or up to %d times as much", len(text), took, estimate, most)
			}
		})
	}
}

// live is how much memory is in use. What a sync.Pool holds, such as the state in which the names of tests are matched,
// outlives one collection, but not two.
func live() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// TestDecodedAnswersAreBounded: a few bytes of JSON can take fifty times as much memory, and it is the provider of all pods
// that would end for it.
func TestDecodedAnswersAreBounded(t *testing.T) {
	r := New()
	hostile := `{"l":[` + strings.TrimSuffix(strings.Repeat(`{"":0},`, 30_000), ",") + `],"k":"v"}` // 210 KiB
	volume := func(sources int) Volume {
		v := Volume{Read: func(s spec.Source) (client.Grant, error) { return grantOf(s, hostile), nil }}
		for i := range sources {
			v.Objects = append(v.Objects, spec.Object{Name: fmt.Sprint("o", i), Source: get(fmt.Sprint("p", i)), Key: "k", Encoding: spec.UTF8})
		}
		return v
	}
	if _, _, err := r.Files(volume(1)); err != nil {
		t.Errorf("one such answer: got error %v", err)
	}
	_, _, err := r.Files(volume(5))
	if failure, ok := errors.AsType[*Error](err); !ok || !failure.Unfit || !errors.Is(err, faultDecoded) {
		t.Errorf("five: got error %v, want an unfit one: %s", err, string(faultDecoded))
	}
	if n := r.pool.borrowed.Load(); n != 0 {
		t.Errorf("%d bytes are not given back", n)
	}
	// What others have decoded passes.
	if !r.pool.borrow(mostTogether) {
		t.Fatal("there is nothing to borrow")
	}
	_, _, err = r.Files(volume(1))
	if failure, ok := errors.AsType[*Error](err); !ok || failure.Unfit || !errors.Is(err, faultTogether) {
		t.Errorf("while others have all that there is: got error %v, want one that passes: %s", err, string(faultTogether))
	}
	small := Volume{
		Objects: []spec.Object{{Name: "o", Source: get("p"), Key: "k", Encoding: spec.UTF8}},
		Read:    func(s spec.Source) (client.Grant, error) { return grantOf(s, `{"k":"v"}`), nil },
	}
	if _, _, err := r.Files(small); err != nil {
		t.Errorf("an answer of ordinary size meanwhile: got error %v", err)
	}
	r.pool.giveBack(mostTogether)
}
