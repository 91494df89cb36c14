package render

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// scale weighs values: about how much memory they take, and at most how long they are when they are printed. A value that
// is in another one twice counts twice, for whoever walks it comes by twice: ten lists of two times the list before are a
// thousand values, and forty are too many to walk for anybody. So a scale stops when it has seen enough.
type scale struct {
	most    int  // the size that is too much
	nodes   int  // values: a list is one, and each of its elements another
	bytes   int  // of texts
	deep    bool // a value is nested too deeply, or contains itself
	address bool // one would be printed as an address in memory
	hidden  bool // one would be, were it not for a value around it that prints itself when it is asked for a text
}

// weightOfValue is what a value takes beside the bytes of a text, in memory or printed: a pair of a map is two of them.
const weightOfValue = 64

func (s *scale) size() int { return s.nodes*weightOfValue + s.bytes }

func (s *scale) full() bool { return s.deep || s.size() > s.most }

func (s *scale) err() error {
	switch {
	case s.deep:
		return fault(fmt.Sprintf("a value is nested deeper than %d, or contains itself", mostDepth))
	case s.size() > s.most:
		return fault(fmt.Sprintf("values of more than %d MiB are too large here", s.most>>20))
	}
	return nil
}

func (s *scale) add(value any) { s.any(value, 0) }

func (s *scale) addValue(value reflect.Value) {
	if !value.IsValid() {
		s.nodes++
		return
	}
	if value.Type() == reflect.TypeFor[reflect.Value]() && value.CanInterface() {
		s.addValue(value.Interface().(reflect.Value)) //nolint:errcheck // it is of that type
		return
	}
	s.value(value, 0)
}

// any weighs a value of the types that most have.
func (s *scale) any(value any, depth int) {
	if depth > mostDepth {
		s.deep = true
	}
	if s.full() {
		return
	}
	switch value := value.(type) {
	case nil, bool, int, int64, float64:
		s.nodes++
	case string:
		s.text(len(value))
	case json.Number:
		s.text(len(value))
	case map[string]any:
		s.nodes++
		for key, inner := range value {
			s.text(len(key))
			s.any(inner, depth+1)
			if s.full() {
				return
			}
		}
	case []any:
		s.nodes++
		for _, inner := range value {
			s.any(inner, depth+1)
			if s.full() {
				return
			}
		}
	default:
		s.value(reflect.ValueOf(value), depth)
	}
}

func (s *scale) text(bytes int) {
	s.nodes++
	s.bytes += bytes
}

// value weighs a value of any type.
func (s *scale) value(v reflect.Value, depth int) {
	if depth > mostDepth {
		s.deep = true
	}
	if s.full() {
		return
	}
	if speaks, always := speaks(v); speaks {
		// It prints itself, as package fmt asks it to: a point in time, for one.
		s.bytes += 2 * weightOfValue
		defer func(address, hidden bool) {
			s.address, s.hidden = address, hidden || !always && (s.address || s.hidden)
		}(s.address, s.hidden)
		s.address, s.hidden = false, false
	}
	switch v.Kind() {
	case reflect.String:
		s.text(v.Len())
	case reflect.Interface:
		if v.CanInterface() {
			s.any(v.Interface(), depth)
		} else if !v.IsNil() {
			s.value(v.Elem(), depth)
		} else {
			s.nodes++
		}
	case reflect.Pointer:
		s.pointer(v, depth)
	case reflect.Map:
		s.nodes++
		for pairs := v.MapRange(); pairs.Next() && !s.full(); {
			s.value(pairs.Key(), depth+1)
			s.value(pairs.Value(), depth+1)
		}
	case reflect.Slice, reflect.Array:
		s.nodes++
		for i := 0; i < v.Len() && !s.full(); i++ {
			s.value(v.Index(i), depth+1)
		}
	case reflect.Struct:
		s.nodes++
		if v.Type() == reflect.TypeFor[scratch]() {
			s.address = true // by what it is made of, which is not the template's
			return
		}
		for i := range v.NumField() {
			s.value(v.Field(i), depth+1)
		}
	case reflect.Chan, reflect.Func, reflect.UnsafePointer:
		s.nodes++
		s.address = true
	default: // a number or a truth value; a complex number is two of them
		s.nodes += 2
	}
}

// pointer weighs what a pointer leads to. Package fmt follows it at the top of a value only, and only to what has parts.
func (s *scale) pointer(v reflect.Value, depth int) {
	if v.IsNil() {
		s.nodes++
		return
	}
	switch v.Elem().Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Array:
		s.address = s.address || depth > 0
	default:
		s.address = true
	}
	s.value(v.Elem(), depth+1)
}

// speaks tells whether package fmt prints a value by calling a method of it: for the verbs of texts, or always.
func speaks(v reflect.Value) (speaks, always bool) {
	if !v.CanInterface() || v.Type().NumMethod() == 0 || v.Kind() == reflect.Interface {
		return false, false
	}
	switch v.Interface().(type) {
	case fmt.Formatter:
		return true, true
	case fmt.Stringer, error:
		return true, false
	}
	return false, false
}
