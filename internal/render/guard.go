package render

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"text/template"
)

// table returns all functions that can be bound to a machine, by name.
func (m *machine) table() map[string]any {
	all := printing()
	maps.Copy(all, m.functions())
	maps.Copy(all, m.sprigFunctions())
	return all
}

// bindable tells the names of all functions that can be bound to a machine.
var bindable = sync.OnceValue(func() map[string]bool {
	names := make(map[string]bool)
	for name := range new(machine).table() {
		names[name] = true
	}
	return names
})

// sizeOfFunction is how many bytes a bound function takes, about.
const sizeOfFunction = 1 << 10

// machine returns a new machine of a template, with the functions that it calls.
func (p *parsed) machine() *machine {
	m := &machine{template: template.New("")}
	option := "missingkey=zero"
	if p.source.ErrorOnMissingKey {
		option = "missingkey=error"
	}
	functions := template.FuncMap{
		stepCommand:    func() (string, error) { return "", m.run.step() },
		printCommand:   func(v reflect.Value) (reflect.Value, error) { return v, m.run.prints(v) },
		compareCommand: func(v reflect.Value) (reflect.Value, error) { return v, m.run.compares(v) },
		resultCommand:  func(v reflect.Value) (reflect.Value, error) { return v, m.run.answers(v) },
		rangeCommand:   func(v reflect.Value) (reflect.Value, error) { return v, m.run.ranges(v) },
	}
	if len(p.functions) > 0 {
		all := m.table()
		for _, name := range p.functions {
			functions[name] = m.guarded(all[name])
		}
	}
	m.template.Option(option).Funcs(functions)
	for name, tree := range p.trees {
		if _, err := m.template.AddParseTree(name, tree); err != nil {
			panic(err) // package template has no such error for trees
		}
	}
	return m
}

// faultCall is all that is told of an error that may quote a value.
const faultCall = fault("it cannot be called with these arguments")

// guarded returns a function as templates may call it: with the same parameters, but bounded in what it takes and returns,
// and with errors that show no value.
func (m *machine) guarded(function any) any {
	f := reflect.ValueOf(function)
	call := f.Call
	if f.Type().IsVariadic() {
		call = f.CallSlice
	}
	result := f.Type().Out(0)
	signature := reflect.FuncOf(parameters(f.Type()), []reflect.Type{result, reflect.TypeFor[error]()}, f.Type().IsVariadic())
	return reflect.MakeFunc(signature, func(args []reflect.Value) []reflect.Value {
		value, err := m.run.call(call, args)
		if err != nil {
			return []reflect.Value{reflect.Zero(result), reflect.ValueOf(&err).Elem()}
		}
		return []reflect.Value{value, reflect.Zero(signature.Out(1))}
	}).Interface()
}

func parameters(function reflect.Type) []reflect.Type {
	var types []reflect.Type
	for parameter := range function.Ins() {
		types = append(types, parameter)
	}
	return types
}

// call calls a function.
func (r *run) call(call func([]reflect.Value) []reflect.Value, args []reflect.Value) (reflect.Value, error) {
	if err := r.alive(); err != nil {
		return reflect.Value{}, err
	}
	s := scale{most: mostValue}
	for _, arg := range args {
		s.addValue(arg)
	}
	if err := s.err(); err != nil {
		return reflect.Value{}, err
	}
	if s.bytes > mostHanded {
		return reflect.Value{}, fault(fmt.Sprintf("texts of more than %d MiB are too large here", mostHanded>>20))
	}
	if err := r.touch(s.size()); err != nil {
		return reflect.Value{}, err
	}
	before := r.built
	value, err := protected(call, args)
	if err != nil {
		return reflect.Value{}, fit(err)
	}
	return value, r.returns(value, before)
}

// protected calls a function and takes a panic for an error.
func protected(call func([]reflect.Value) []reflect.Value, args []reflect.Value) (value reflect.Value, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = faultCall
			if known, ok := cause.(error); ok {
				err = known
			}
		}
	}()
	results := call(args)
	if len(results) > 1 && !results[1].IsNil() {
		return results[0], results[1].Interface().(error) //nolint:errcheck // its type is error
	}
	return results[0], nil
}

// fit returns what may be shown of an error of a function.
func fit(err error) error {
	if known, ok := errors.AsType[fault](err); ok {
		return known
	}
	if unread, ok := errors.AsType[*unreadError](err); ok {
		return unread
	}
	return faultCall
}

// returns weighs what a function returned, and takes it from the budget but for what the function has taken itself.
func (r *run) returns(value reflect.Value, before int) error {
	if value.IsValid() && value.Kind() == reflect.Interface {
		value = value.Elem()
	}
	switch {
	case !value.IsValid(), value.Kind() == reflect.Bool, value.CanInt(), value.CanUint(), value.CanFloat(), value.CanComplex():
		return nil // an execution cannot keep many of them
	case value.Kind() == reflect.String:
		return r.room(max(0, value.Len()+sizeOfText-(r.built-before)))
	}
	s := scale{most: mostValue}
	s.addValue(value)
	if err := s.err(); err != nil {
		return err
	}
	return r.room(max(0, s.size()-(r.built-before)))
}

// answers weighs what a method returned.
func (r *run) answers(value reflect.Value) error {
	if err := r.alive(); err != nil {
		return err
	}
	return r.returns(value, r.built)
}

// sizeOfRanged is what a pair of a map takes while text/template ranges over it: it sorts all of them first.
const sizeOfRanged = 80

// ranges takes what is needed to range over a value. A loop in a loop in a loop may have all of it at a time, so nothing is
// given back.
func (r *run) ranges(value reflect.Value) error {
	if err := r.alive(); err != nil {
		return err
	}
	for value.IsValid() && (value.Kind() == reflect.Pointer || value.Kind() == reflect.Interface) {
		value = value.Elem()
	}
	if value.IsValid() && value.Kind() == reflect.Map {
		return r.room(sizeOfRanged * value.Len())
	}
	return nil
}

// compares looks at a value that is compared or looked up by text/template itself, which takes time with long texts.
func (r *run) compares(value reflect.Value) error {
	if err := r.alive(); err != nil {
		return err
	}
	if value.IsValid() && value.Kind() == reflect.Interface {
		value = value.Elem()
	}
	if value.IsValid() && value.Kind() == reflect.String {
		return r.touch(value.Len())
	}
	return nil
}

// prints weighs a value before text/template prints it: package fmt makes the whole text before it writes.
func (r *run) prints(value reflect.Value) error {
	if err := r.alive(); err != nil {
		return err
	}
	for value.IsValid() && (value.Kind() == reflect.Pointer || value.Kind() == reflect.Interface) {
		value = value.Elem()
	}
	s := scale{most: mostPrinted}
	s.addValue(value)
	return printable(s)
}

// printable returns what is wrong with printing values.
func printable(s scale) error {
	if err := s.err(); err != nil {
		return err
	}
	if s.address {
		return fault("the value holds the address of another one, which would be printed and is never the same: print its parts")
	}
	return nil
}
