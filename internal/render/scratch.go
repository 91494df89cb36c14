package render

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// maxScratch is how many entries a scratch has at most, those of its maps included.
const maxScratch = 10_000

// scratch is a template's own store, empty when an execution begins. A template calls its methods without a guard between, so
// they keep the bounds themselves: what is stored is a copy, and the only thing that can be changed is a map at the top.
type scratch struct {
	run     *run
	values  map[string]any
	entries int
}

func (m *machine) scratch() *scratch {
	s := &m.run.scratch
	s.run = m.run
	return s
}

// Format prints the word scratch: a template is to print what is stored, and not the store.
func (scratch) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "scratch") }

// Key tells whether there is a value under a key.
func (s *scratch) Key(key string) bool {
	_, there := s.values[key]
	return there
}

// Get returns the value under a key, or nil.
func (s *scratch) Get(key string) any { return s.values[key] }

// Set stores a value under a key and returns an empty text, as all methods do that store: it prints nothing.
func (s *scratch) Set(key string, value any) (string, error) {
	if s.values == nil {
		s.values = make(map[string]any)
	}
	return "", s.store(s.values, key, value)
}

// SetX is Set, unless there is a value.
func (s *scratch) SetX(key string, value any) (string, error) {
	if s.Key(key) {
		return "", nil
	}
	return s.Set(key, value)
}

// MapSet stores a value in the map under a key, which it makes if need be.
func (s *scratch) MapSet(key, inner string, value any) (string, error) {
	m, err := s.mapAt(key)
	if err != nil {
		return "", err
	}
	return "", s.store(m, inner, value)
}

// MapSetX is MapSet, unless the map has a value there.
func (s *scratch) MapSetX(key, inner string, value any) (string, error) {
	m, err := s.mapAt(key)
	if err != nil {
		return "", err
	}
	if _, there := m[inner]; there {
		return "", nil
	}
	return "", s.store(m, inner, value)
}

// MapValues returns the values of the map under a key, in the order of their keys; nil without a map.
func (s *scratch) MapValues(key string) ([]any, error) {
	m, isMap := s.values[key].(map[string]any)
	if !isMap {
		return nil, nil
	}
	if err := s.run.room(sizeOfText * len(m)); err != nil {
		return nil, err
	}
	values := make([]any, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[name])
	}
	return values, nil
}

// mapAt returns the map under a key.
func (s *scratch) mapAt(key string) (map[string]any, error) {
	if !s.Key(key) {
		if _, err := s.Set(key, map[string]any{}); err != nil {
			return nil, err
		}
	}
	m, isMap := s.values[key].(map[string]any)
	if !isMap || m == nil {
		return nil, fault("scratch: what is stored under the key is not a map")
	}
	return m, nil
}

func (s *scratch) store(m map[string]any, key string, value any) error {
	if _, there := m[key]; !there {
		if s.entries == maxScratch {
			return fault(fmt.Sprintf("scratch: more than %d entries", maxScratch))
		}
		s.entries++
	}
	value, err := s.run.fresh(value)
	if err != nil {
		return err
	}
	m[key] = value
	return nil
}
