package render

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"text/template"
	"unicode/utf8"
)

// printing returns the functions of text/template that print. They print what they always do, but look first at how much that
// would be: package fmt makes a text as a whole.
func printing() map[string]any {
	return map[string]any{
		"print":    bounded(fmt.Sprint),
		"println":  bounded(fmt.Sprintln),
		"html":     bounded(template.HTMLEscaper),
		"js":       bounded(template.JSEscaper),
		"urlquery": bounded(template.URLQueryEscaper),
		"printf":   printf,
	}
}

func bounded(print func(...any) string) func(...any) (string, error) {
	return func(args ...any) (string, error) {
		s := scale{most: mostPrinted}
		for _, arg := range args {
			s.add(arg)
		}
		if err := printable(s); err != nil {
			return "", err
		}
		return print(args...), nil
	}
}

// printf is fmt.Sprintf, within bounds.
func printf(format string, args ...any) (string, error) {
	if len(format) > mostFormat {
		return "", fault(fmt.Sprintf("a format has more than %d KiB", mostFormat>>10))
	}
	f := formatting{format: format}
	for _, arg := range args {
		s := scale{most: mostPrinted}
		s.add(arg)
		if err := printable(s); err != nil {
			return "", err
		}
		f.args = append(f.args, weighed{arg, s})
	}
	if err := f.measure(); err != nil {
		return "", err
	}
	return fmt.Sprintf(format, args...), nil
}

// formatting finds how long the text can be that a format makes. It reads the format as package fmt does, and expects the
// worst of each verb.
type formatting struct {
	format string
	args   []weighed

	at      int  // in the format
	next    int  // the argument whose turn it is
	good    bool // the verb has an argument
	indexed bool // one was named by its number, so those that are left over are not printed
	length  int  // of the text, at most
}

type weighed struct {
	value any
	scale
}

// What a verb can make out of a single value, and of a byte of a text.
const (
	mostOfVerb  = 64  // %!d(json.Number= and the like
	mostOfValue = 700 // %f makes three hundred digits of a large number, and twice as many of a complex one
	mostOfByte  = 10  // %+q makes \U0010ffff of what may be one byte for the scale
)

// measure adds up the length, and returns why the format must not be used.
func (f *formatting) measure() error {
	f.length = len(f.format)
	for f.at = 0; f.at < len(f.format); f.at++ {
		if f.format[f.at] != '%' {
			continue
		}
		f.at++
		if err := f.verb(); err != nil {
			return err
		}
		if f.length > mostPrinted {
			return fault(fmt.Sprintf("the text could have more than %d MiB: use smaller widths, or print less", mostPrinted>>20))
		}
	}
	if !f.indexed {
		for ; f.next < len(f.args); f.next++ {
			f.length += mostOfVerb + f.args[f.next].size()
		}
	}
	if f.length > mostPrinted {
		return fault(fmt.Sprintf("the text could have more than %d MiB: use smaller widths, or print less", mostPrinted>>20))
	}
	return nil
}

// verb reads what follows a percent sign, up to the last byte of it.
func (f *formatting) verb() error {
	f.length += mostOfVerb
	plain := true
	for f.at < len(f.format) && strings.IndexByte("#0+- ", f.format[f.at]) >= 0 {
		plain = plain && (f.is('0') || f.is('-'))
		f.at++
	}
	f.good = true
	named := f.index()
	began := f.at
	width, named := f.number(named)
	if named && f.at > began {
		f.good = false // a width behind the number of its argument; of a precision package fmt takes it
	}
	precision := 0
	if f.is('.') && f.at+1 < len(f.format) {
		f.at++
		f.good = f.good && !named
		precision, named = f.number(f.index())
	}
	if !named {
		f.index()
	}
	if f.at >= len(f.format) {
		return nil
	}
	verb, size := utf8.DecodeRuneInString(f.format[f.at:])
	f.at += size - 1
	if verb == '%' || !f.good || f.next >= len(f.args) {
		return nil
	}
	arg := f.args[f.next]
	f.next++
	switch {
	case verb == 'p':
		return fault("%p prints an address in memory, which is never the same")
	case verb == 'w':
		return fault("%w is for errors, and prints what other values are made of: use %v")
	case arg.hidden && !strings.ContainsRune("vsqxXT", verb): // only these ask a value to print itself
		return fault(fmt.Sprintf("%%%c prints what the value is made of, addresses in memory included, which are never the same: use %%v", verb))
	}
	f.length += arg.nodes * (width + 2*precision)
	if plain && strings.ContainsRune("svdtT", verb) {
		f.length += arg.nodes*mostOfVerb + arg.bytes
	} else {
		f.length += arg.nodes*mostOfValue + arg.bytes*mostOfByte
	}
	return nil
}

func (f *formatting) is(c byte) bool { return f.at < len(f.format) && f.format[f.at] == c }

// mostNumber is what package fmt takes as a width or a precision. Of a number that is written it looks at what it has so far
// before it reads a digit, so that may have one more.
const mostNumber = 1_000_000

// index reads the number of an argument, such as [2], and tells whether there is one.
func (f *formatting) index() bool {
	if !f.is('[') {
		return false
	}
	f.indexed = true
	end := strings.IndexByte(f.format[f.at:], ']')
	if end < 0 {
		f.at++
		f.good = false
		return false
	}
	digits := f.format[f.at+1 : f.at+end]
	f.at += end + 1
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n > 10*mostNumber+9 {
		f.good = false
		return false
	}
	if n < 1 || n > uint64(len(f.args)) {
		f.good = false
		return true
	}
	f.next = int(n) - 1
	return true
}

// number reads a width or a precision; for a star an argument is taken, and its number is used up.
func (f *formatting) number(named bool) (int, bool) {
	if f.is('*') {
		f.at++
		if f.next >= len(f.args) {
			return 0, false
		}
		v := reflect.ValueOf(f.args[f.next].value)
		f.next++
		switch {
		case v.CanInt() && v.Int() >= -mostNumber && v.Int() <= mostNumber:
			return int(max(v.Int(), -v.Int())), false
		case v.CanUint() && v.Uint() <= mostNumber:
			return int(v.Uint()), false //nolint:gosec // a million at most
		}
		return 0, false
	}
	n := 0
	for ; f.at < len(f.format) && f.format[f.at] >= '0' && f.format[f.at] <= '9'; f.at++ {
		if n > mostNumber {
			f.at = len(f.format) // package fmt reads no further
			return 0, named
		}
		n = n*10 + int(f.format[f.at]-'0')
	}
	return n, named
}
