package render

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"dario.cat/mergo"
)

// in tells whether a list holds a value, or a text another one. Only integers with integers, floats with floats and texts of
// one type can be equal.
func in(list, value any) (bool, error) {
	l, v := reflect.ValueOf(list), reflect.ValueOf(value)
	switch l.Kind() {
	case reflect.String:
		same, err := sameText(l, v)
		return same && strings.Contains(l.String(), v.String()), err
	case reflect.Slice, reflect.Array:
		for i := range l.Len() {
			item := l.Index(i)
			if item.Kind() == reflect.Interface {
				item = item.Elem()
			}
			if equal, err := isEqual(item, v); equal || err != nil {
				return equal, err
			}
		}
	}
	return false, nil
}

func isEqual(item, value reflect.Value) (bool, error) {
	switch {
	case item.CanInt():
		return value.CanInt() && value.Int() == item.Int(), nil
	case item.CanFloat():
		return value.CanFloat() && value.Float() == item.Float(), nil
	case item.Kind() == reflect.String:
		same, err := sameText(item, value)
		return same && value.String() == item.String(), err
	}
	return false, nil
}

// sameText tells whether a value is of the same type as a text: a number of Vault's answers is a text of another type.
func sameText(text, value reflect.Value) (bool, error) {
	if !value.IsValid() {
		return false, fault("a value that is missing cannot be looked for among texts")
	}
	return value.Type() == text.Type(), nil
}

// contains is in with its arguments the other way round, for a pipe.
func contains(value, list any) (bool, error) { return in(list, value) }

// maxComparisons is how much containsAll and the like may compare: values with items of a list, or with bytes of a text.
const maxComparisons = 1 << 23

// containsSome returns containsAll and the like: a function that looks for the first of some values that is in a list if
// wanted, or is not in it if not, and returns result if there is one.
func containsSome(wanted, result bool) func(values []any, list any) (bool, error) {
	return func(values []any, list any) (bool, error) {
		l := reflect.ValueOf(list)
		switch l.Kind() {
		case reflect.Slice, reflect.Array, reflect.String:
			if l.Len() > maxComparisons/max(1, len(values)) {
				return false, fault("two lists that long cannot be compared")
			}
		}
		for _, value := range values {
			found, err := in(list, value)
			if err != nil {
				return false, err
			}
			if found == wanted {
				return result, nil
			}
		}
		return !result, nil
	}
}

const faultDepth = fault("a value is nested deeper than 1000")

// fresh copies a value with all that it holds and that could be changed. What a function is to keep it copies first, so that
// no value can come to hold itself: nothing that prints such a value ends.
func (r *run) fresh(value any) (any, error) {
	if value == nil {
		return nil, nil
	}
	copied, err := r.freshValue(reflect.ValueOf(value), 0)
	if err != nil {
		return nil, err
	}
	return copied.Interface(), nil
}

func (r *run) freshValue(v reflect.Value, depth int) (reflect.Value, error) {
	if depth > mostDepth {
		return v, faultDepth
	}
	switch v.Kind() {
	case reflect.Interface:
		if v.IsNil() {
			return v, nil
		}
		return r.freshValue(v.Elem(), depth)
	case reflect.Map:
		return r.freshMap(v, depth)
	case reflect.Slice:
		return r.freshSlice(v, depth)
	case reflect.Pointer:
		switch pointer := v.Interface().(type) {
		case *vaultSecret:
			secret := *pointer
			data, err := r.freshValue(reflect.ValueOf(secret.Data), depth+1)
			if err != nil {
				return v, err
			}
			secret.Data, _ = data.Interface().(map[string]any)
			return reflect.ValueOf(&secret), nil
		case *scratch:
			return v, fault("what scratch returns cannot be kept in another value")
		}
	}
	return v, nil // cannot be changed
}

func (r *run) freshMap(v reflect.Value, depth int) (reflect.Value, error) {
	if v.IsNil() {
		return v, nil
	}
	if err := r.room(sizeOfPair * v.Len()); err != nil {
		return v, err
	}
	copied := reflect.MakeMapWithSize(v.Type(), v.Len())
	for pairs := v.MapRange(); pairs.Next(); {
		item, err := r.freshValue(pairs.Value(), depth+1)
		if err != nil {
			return v, err
		}
		copied.SetMapIndex(pairs.Key(), item)
	}
	return copied, nil
}

func (r *run) freshSlice(v reflect.Value, depth int) (reflect.Value, error) {
	if v.IsNil() {
		return v, nil
	}
	if err := r.room(sizeOfText * v.Len()); err != nil {
		return v, err
	}
	copied := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
	for i := range v.Len() {
		item, err := r.freshValue(v.Index(i), depth+1)
		if err != nil {
			return v, err
		}
		copied.Index(i).Set(item)
	}
	return copied, nil
}

func (r *run) freshFields(fields map[string]any) (map[string]any, error) {
	copied, err := r.freshValue(reflect.ValueOf(fields), 0)
	if err != nil {
		return nil, err
	}
	m, _ := copied.Interface().(map[string]any)
	return m, nil
}

// explodeMap makes of a map whose keys are paths, such as db/main/user, maps in maps.
func (m *machine) explodeMap(flat map[string]any) (map[string]any, error) {
	flat, err := m.run.freshFields(flat) // a map in it may get more keys
	if err != nil {
		return nil, err
	}
	top := make(map[string]any, len(flat))
	for _, path := range slices.Sorted(maps.Keys(flat)) {
		depth := strings.Count(path, "/")
		if depth > mostDepth {
			return nil, faultDepth
		}
		if err := m.run.room(sizeOfPair * (1 + depth)); err != nil {
			return nil, err
		}
		at, rest := top, path
		for range depth {
			var name string
			name, rest, _ = strings.Cut(rest, "/")
			if _, there := at[name]; !there {
				at[name] = map[string]any{}
			}
			inner, isMap := at[name].(map[string]any)
			if !isMap {
				return nil, fault("explodeMap: of two keys the one that leads through the other finds no map there")
			}
			at = inner
		}
		if rest != "" {
			at[rest] = flat[path]
		}
	}
	return top, nil
}

// mergeMap returns a function that puts what is in the second map into the first one, the maps in them included. A value that
// is there already stays, or with WithOverride gives way.
func (m *machine) mergeMap(options ...func(*mergo.Config)) func(into, from map[string]any) (map[string]any, error) {
	return func(into, from map[string]any) (map[string]any, error) {
		from, err := m.run.freshFields(from) // parts of it become parts of the other
		if err != nil {
			return nil, err
		}
		if err := mergo.Map(&into, from, options...); err != nil {
			return nil, fault("the two maps do not fit together: they have values of different kinds under one key")
		}
		return into, nil
	}
}
