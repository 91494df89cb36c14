package lease

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// filler gives every field of a value something of its own, so that a test notices the field that is added later.
type filler struct {
	t    *testing.T
	n    int
	from time.Time
}

func (f *filler) fill(v reflect.Value) {
	f.n++
	switch v.Interface().(type) {
	case redact.String:
		v.Set(reflect.ValueOf(redact.New(fmt.Sprint("secret", f.n))))
		return
	case redact.Bytes:
		v.Set(reflect.ValueOf(redact.NewBytes(fmt.Appendf(nil, `{"secret":%d}`, f.n))))
		return
	case time.Time:
		v.Set(reflect.ValueOf(f.from.Add(time.Duration(f.n) * time.Second)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text", f.n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(f.n))
	case reflect.Uint32:
		v.SetUint(uint64(f.n))
	case reflect.Float64:
		v.SetFloat(float64(f.n) / 8)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	default:
		f.t.Fatalf("a field of type %s: teach the test to fill it", v.Type())
	}
}

func filled[T any](f *filler) T {
	var value T
	f.fill(reflect.ValueOf(&value).Elem())
	return value
}

// All that a volume has survives a restart.
func TestRecordHasEverything(t *testing.T) {
	w := newWorld(t)
	f := &filler{t: t, from: time.Now().Add(-100 * time.Hour).UTC().Round(0)}
	m := filled[spec.Mount](f)
	m.Class.Lifecycle.RevokeGrace = time.Hour
	v := newVolume(w.keeper, m)
	v.written, v.ended = true, true
	holding := func(vault spec.Vault) *Holding {
		h := newHolding(v, w.config.Pool.Restore(vault, filled[client.Record](f)))
		h.token = filled[term](f)
		h.behind, h.doubted = filled[time.Time](f), true
		for i := range 3 {
			g := held{Grant: filled[client.Grant](f), term: filled[term](f)}
			if i > 0 {
				g.Warnings = g.Warnings[:0:i] // an empty list is not the same as none
			}
			if i > 1 {
				g.Warnings = nil
			}
			h.grants[g.Source] = &g
			h.size += len(g.Data.Reveal())
		}
		return h
	}
	v.shown, v.sources = holding(m.Class.Vault), filled[[]spec.Source](f) // which a template asked for
	v.next = holding(filled[spec.Vault](f))
	at := time.Now().Add(time.Minute).UTC().Round(0)
	doomed := map[string]*Holding{} // by token
	for _, vault := range []spec.Vault{m.Class.Vault, filled[spec.Vault](f), filled[spec.Vault](f)} {
		record := filled[client.Record](f)
		record.Batch = false // or else there is nothing to give back
		h := newHolding(v, w.config.Pool.Restore(vault, record))
		h.token = filled[term](f)
		v.unwanted[h] = &doom{at: at}
		doomed[record.Token] = h
	}

	content, err := json.Marshal(v.record())
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.keeper.restore(content)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.mount, v.mount) {
		t.Error("the mount is another one")
	}
	if got.key != v.key || got.versionKey != v.versionKey || !got.written || !got.ended || !reflect.DeepEqual(got.sources, v.sources) {
		t.Error("key, version key, written, ended or sources are others")
	}
	same := func(name string, a, b *Holding) {
		t.Helper()
		if a.volume == b.volume || b.volume != got {
			t.Errorf("%s: is not of the volume that was restored", name)
		}
		if a.session.Vault() != b.session.Vault() {
			t.Errorf("%s: is for another Vault", name)
		}
		if !reflect.DeepEqual(a.session.Record(), b.session.Record()) || !sameTerm(a.token, b.token) {
			t.Errorf("%s: has another token", name)
		}
		if !a.behind.Equal(b.behind) || a.doubted != b.doubted || a.size != b.size {
			t.Errorf("%s: got behind %v, doubted %v, size %d; want %v, %v, %d", name, b.behind, b.doubted, b.size, a.behind, a.doubted, a.size)
		}
		for source, g := range b.grants {
			if old := a.grants[source]; old != nil && sameTerm(old.term, g.term) {
				g.term = old.term
			}
		}
		if !reflect.DeepEqual(a.grants, b.grants) {
			t.Errorf("%s: has other grants", name)
		}
	}
	same("shown", v.shown, got.shown)
	same("next", v.next, got.next)
	if len(got.unwanted) != len(doomed) {
		t.Fatalf("got %d unwanted, want %d", len(got.unwanted), len(doomed))
	}
	for h, d := range got.unwanted {
		same("unwanted", doomed[h.Token().Reveal()], h)
		if !d.at.Equal(at) {
			t.Errorf("it is to be given back at %v, want %v", d.at, at)
		}
	}
}

// What was to be given back at once still is, and what the clock would have wait for ever does not.
func TestRestoredDoom(t *testing.T) {
	w := newWorld(t)
	v := newVolume(w.keeper, w.order("a"))
	for name, row := range map[string]struct {
		at   time.Time
		most time.Duration
	}{
		"at once":                    {time.Time{}, 0},
		"in a minute":                {time.Now().Add(time.Minute), time.Minute},
		"the clock was set far back": {time.Now().Add(1000 * time.Hour), 10 * time.Minute},
	} {
		h := newHolding(v, w.config.Pool.Restore(w.vault.Vault("app"), client.Record{Token: "t"}))
		v.unwanted = map[*Holding]*doom{h: {at: row.at}}
		content, err := json.Marshal(v.record())
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.keeper.restore(content)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range got.unwanted {
			if d.at.After(time.Now().Add(row.most)) {
				t.Errorf("%s: got %v", name, d.at)
			}
		}
		if len(got.unwanted) != 1 {
			t.Errorf("%s: got %d to give back, want 1", name, len(got.unwanted))
		}
	}
}
