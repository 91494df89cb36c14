package render

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"text/template"
)

// failure returns what may be shown of an error of an execution: the place in the template, and what is wrong there. The
// errors of text/template quote values, as in "range can't iterate over <value>". So nothing of their text is passed on but
// what is known to come from the template or from the types of values. [*unreadError] and the faults of functions and bounds
// can be found in what is returned.
func failure(err error) error {
	where, message := locate(err)
	if unread, ok := errors.AsType[*unreadError](err); ok {
		return fmt.Errorf("%s: %w", where, unread)
	}
	function := ""
	if match := calling.FindStringSubmatch(message); match != nil {
		function, message = match[1], message[len(match[0]):]
	}
	if known, ok := errors.AsType[fault](err); ok {
		text := string(known)
		return fmt.Errorf("%s: %s%w", where, strings.TrimSuffix(withFunction(function, text), text), known)
	}
	for _, entry := range messages() {
		if match := entry.pattern.FindStringSubmatchIndex(message); match != nil {
			text := entry.pattern.ExpandString(nil, entry.shown, message, match)
			return fmt.Errorf("%s: %s", where, withFunction(function, shortened(string(text))))
		}
	}
	return fmt.Errorf("%s: %s", where, withFunction(function, "it cannot be executed with the values that there are"))
}

// passes tells whether an execution failed by what else the node had to do: another time it may not.
func passes(err error) bool {
	return errors.Is(err, faultTogether) || errors.Is(err, faultTime) || errors.Is(err, faultSpent)
}

// withFunction puts the name of a function in front of a text, but for the hidden ones and where it stands there already.
func withFunction(function, text string) string {
	if function == "" || strings.HasPrefix(function, "_") || strings.HasPrefix(text, function+":") {
		return text
	}
	return function + ": " + text
}

var (
	position = regexp.MustCompile(`^template: :(\d+):(\d+): executing `)
	calling  = regexp.MustCompile(`^error calling ([\pL\pN_]+): `)
)

// locate takes apart what text/template writes: "template: :3:5: executing "name" at <node>: message". The node has no ">"
// in it: see inspector.operand. The message is empty if the error is of another form.
func locate(err error) (where, message string) {
	exec, ok := errors.AsType[template.ExecError](err)
	if !ok {
		return "template", ""
	}
	text := exec.Error()
	match := position.FindStringSubmatch(text)
	if match == nil {
		return "template", ""
	}
	column, _ := strconv.Atoi(match[2]) // these are digits; text/template counts from 0
	where = fmt.Sprintf("template line %s, column %d", match[1], column+1)
	name, err := strconv.QuotedPrefix(text[len(match[0]):])
	if err != nil {
		return where, ""
	}
	if _, message, ok = strings.Cut(text[len(match[0])+len(name):], ">: "); !ok {
		return where, ""
	}
	return where, message
}

// messages are the errors of text/template that are shown, and what of them: names that stand in the template, and types.
// They are compiled when the first one is needed.
var messages = sync.OnceValue(func() []struct {
	pattern *regexp.Regexp
	shown   string
} {
	const (
		name   = `([\pL\pN_]+)`
		kind   = `([\pL\pN_.*{}\[\] ]+)`
		number = `(\d+)`
	)
	var list []struct {
		pattern *regexp.Regexp
		shown   string
	}
	for _, row := range [][2]string{
		{`map has no entry for key "` + name + `"`, `map has no entry for key "$1"`},
		{`nil data; no entry for key "` + name + `"`, `nil data; no entry for key "$1"`},
		{`can't evaluate field ` + name + ` in type ` + kind, `can't evaluate field $1 in type $2`},
		{`nil pointer evaluating ` + kind + `\.` + name, `nil pointer evaluating $1.$2`},
		{name + ` is not a method but has arguments`, `$1 is not a method but has arguments`},
		{name + ` has arguments but cannot be invoked as function`, `$1 has arguments but cannot be invoked as function`},
		{name + ` is an unexported field of struct type ` + kind, `$1 is an unexported field of struct type $2`},
		{`wrong number of args for ` + name + `: want at least ` + number + ` got ` + number, `wrong number of args for $1: want at least $2 got $3`},
		{`wrong number of args for ` + name + `: want ` + number + ` got ` + number, `wrong number of args for $1: want $2 got $3`},
		{`wrong type for value; expected ` + kind + `; got ` + kind, `wrong type for value; expected $1; got $2`},
		{`invalid value; expected ` + kind, `invalid value; expected $1`},
		{`expected (bool|string|integer|unsigned integer|float|complex); found .*`, `a constant of the wrong type; expected $1`},
		{`can't handle .* for arg of type ` + kind, `a constant of the wrong type; expected $1`},
		{`cannot assign nil to ` + kind, `cannot assign nil to $1`},
		{`dereference of nil pointer of type ` + kind, `dereference of nil pointer of type $1`},
		{`nil is not a command`, `nil is not a command`},
		{`indirection through explicit nil in .*`, `indirection through explicit nil`},
		{`can't give argument to non-function .*`, `what is not a function is given arguments`},
		{`can't print .* of type ` + kind, `a value of type $1 cannot be printed`},
		{`.* overflows int`, `the number is too large for an int`},
		{`range can't iterate over .*`, `range can't iterate over this value: it takes lists, maps and integers`},
		{`can't use .* (?:to )?iterate over more than one variable`, `range has one variable only for this value`},

		{`index of untyped nil`, `index of untyped nil`},
		{`index of nil pointer`, `index of nil pointer`},
		{`cannot index slice/array with nil`, `cannot index slice/array with nil`},
		{`cannot index slice/array with type ` + kind, `cannot index slice/array with type $1`},
		{`index out of range: .*`, `index out of range`},
		{`can't index item of type ` + kind, `can't index item of type $1`},
		{`value is nil; should be of type ` + kind, `value is nil; should be of type $1`},
		{`value has type ` + kind + `; should be ` + kind, `value has type $1; should be $2`},
		{`slice of untyped nil`, `slice of untyped nil`},
		{`slice of nil pointer`, `slice of nil pointer`},
		{`too many slice indexes: .*`, `too many slice indexes`},
		{`cannot 3-index slice a string`, `cannot 3-index slice a string`},
		{`can't slice item of type ` + kind, `can't slice item of type $1`},
		{`invalid slice index: .*`, `invalid slice index`},
		{`len of nil pointer`, `len of nil pointer`},
		{`len of type ` + kind, `len of type $1`},
		{`call of nil`, `call of nil`},
		{`non-function .* of type ` + kind, `non-function of type $1`},
		{`invalid type for comparison`, `invalid type for comparison`},
		{`missing argument for comparison`, `missing argument for comparison`},
		{`incompatible types for comparison: ` + kind + ` and ` + kind, `incompatible types for comparison: $1 and $2`},
		{`non-comparable types? .*`, `non-comparable type`},
	} {
		list = append(list, struct {
			pattern *regexp.Regexp
			shown   string
		}{regexp.MustCompile(`^(?s:` + row[0] + `)$`), row[1]})
	}
	return list
})
