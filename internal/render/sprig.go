package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"reflect"
	"regexp/syntax"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/Masterminds/sprig/v3"
)

// hermetic are sprig's functions without those that sprig itself says not to be repeatable. consul-template has these.
var hermetic = sprig.HermeticTxtFuncMap()

// sprigPrefix begins the names of sprig's functions, as in consul-template.
const sprigPrefix = "sprig_"

// harmless are the functions of sprig that templates may call as they are: each makes at most a few times as much as it is
// given, takes time in proportion, and depends on nothing else. What sprig adds in a later version is not among them.
var harmless = strings.Fields(`
	abbrev abbrevboth camelcase contains hasPrefix hasSuffix hello initials kebabcase lower nospace plural snakecase swapcase
	title toString toStrings trim trimPrefix trimSuffix trunc untitle upper regexQuoteMeta
	add add1 atoi biggest ceil float64 floor int int64 max maxf min minf mul round sub toDecimal
	all any coalesce default empty ternary deepEqual kindIs kindOf typeIs typeIsLike typeOf
	dict get hasKey list omit pick pluck sortAlpha tuple unset
	b32dec b32enc b64dec b64enc toJson mustToJson mustToRawJson adler32sum sha1sum sha256sum sha512sum
	base clean dir ext isAbs osBase osClean osDir osExt osIsAbs
	duration must_date_modify mustDateModify unixEpoch
`)

// unavailableSprig are the functions of sprig that no template may call, with what goes on from "function sprig_now is not
// available: ". The reasons name a way that is open, where there is one.
var unavailableSprig = map[string]string{ //nolint:gosec // these are names of functions, and not passwords
	"sprig_now": onClock, "sprig_date": onClock, "sprig_dateInZone": onClock, "sprig_date_in_zone": onClock,
	"sprig_htmlDate": onClock, "sprig_htmlDateInZone": onClock, "sprig_ago": onClock,
	"sprig_dateModify":  "consul-template does not have it; sprig_mustDateModify does the same",
	"sprig_date_modify": "consul-template does not have it; sprig_must_date_modify does the same",

	"sprig_randAlpha": random, "sprig_randAlphaNum": random, "sprig_randAscii": random, "sprig_randNumeric": random,
	"sprig_randBytes": random, "sprig_randInt": random, "sprig_shuffle": random, "sprig_uuidv4": random,
	"sprig_bcrypt": random, "sprig_htpasswd": random, "sprig_encryptAES": random,

	"sprig_genPrivateKey": makesKeys, "sprig_genCA": makesKeys, "sprig_genCAWithKey": makesKeys,
	"sprig_genSelfSignedCert": makesKeys, "sprig_genSelfSignedCertWithKey": makesKeys,
	"sprig_genSignedCert": makesKeys, "sprig_genSignedCertWithKey": makesKeys, "sprig_buildCustomCert": makesKeys,
	"sprig_derivePassword": "it takes a lot of memory and time on purpose; let Vault make passwords",

	"sprig_env": ofNode, "sprig_expandenv": ofNode,
	"sprig_getHostByName": "what it answers depends on the network of the node",
}

const (
	onClock   = "it depends on the clock or the time zone of the node, so the file would change without cause; see timestamp"
	random    = "each call has another result, so the file would change each time that it is made; let Vault make random values"
	makesKeys = "it makes keys and certificates, each time others; use pkiCert, or secret with the path of Vault's PKI"
	ofNode    = "the environment is the provider's, not the pod's; env knows the names of the pod"
)

// Bounds of one call of a function. What all calls together may build is bounded by the execution: see run.room.
const (
	maxMade     = 1 << 20 // bytes of a text that a function makes: no file may be larger
	maxListed   = 100_000 // values of a list that a function makes, or of JSON that it reads
	maxCompared = 1 << 28 // bytes of a list, times the values that each of its values is compared with: a second or so
	maxCutset   = 256     // bytes of a set of characters: each of them is looked for at each place of a text
	maxVersion  = 1 << 10 // bytes of a semantic version or of constraints on one
	maxOperands = 100     // operands of decimal numbers: each may make the number longer
)

const divisionByZero = fault("the divisor is zero")

// sprigFunctions returns the functions of sprig that templates may call, by name with its prefix sprig_: the harmless ones,
// those that a check of their arguments makes harmless, and those that ours take the place of.
func (m *machine) sprigFunctions() map[string]any {
	functions := m.sprigSubstitutes()
	checks := m.sprigChecks()
	maps.Copy(checks, m.sprigSearches())
	for name, check := range checks {
		functions[name] = checked(check, hermetic[name])
	}
	for _, name := range harmless {
		functions[name] = hermetic[name]
	}
	prefixed := make(map[string]any, len(functions))
	for name, function := range functions {
		prefixed[sprigPrefix+name] = function
	}
	return prefixed
}

// checked returns a function with the parameters and the result of the original, which calls it when the check, of the same
// parameters, returns no error.
func checked(check, original any) any {
	c, f := reflect.ValueOf(check), reflect.ValueOf(original)
	call := reflect.Value.Call
	if f.Type().IsVariadic() {
		call = reflect.Value.CallSlice
	}
	result, failure := f.Type().Out(0), reflect.TypeFor[error]()
	signature := reflect.FuncOf(parameters(f.Type()), []reflect.Type{result, failure}, f.Type().IsVariadic())
	return reflect.MakeFunc(signature, func(args []reflect.Value) []reflect.Value {
		if err := call(c, args)[0]; !err.IsNil() {
			return []reflect.Value{reflect.Zero(result), err}
		}
		results := call(f, args)
		if len(results) == 1 {
			results = append(results, reflect.Zero(failure))
		}
		return results
	}).Interface()
}

// function returns a function of sprig with its type.
func function[F any](name string) F {
	f, ok := hermetic[name].(F)
	if !ok {
		panic("sprig has no function " + name + " of the type that is expected")
	}
	return f
}

// sprigChecks returns, by the names of functions without prefix, what finds the arguments that would make too much, take too
// long, or panic. Within the bounds a function does what sprig's does, for it is sprig's.
func (m *machine) sprigChecks() map[string]any {
	var (
		texts = func(values ...any) error { return m.makes(textBytes(values), 0, 0) }
		split = func(separator, text string) error { return lists(strings.Count(text, separator) + 1) }
		chars = func(cutset, _ string) error {
			if len(cutset) > maxCutset {
				return fault(fmt.Sprintf("the set of characters has more than %d bytes", maxCutset))
			}
			return nil
		}
		version = func(texts ...string) error {
			for _, text := range texts {
				if len(text) > maxVersion {
					return fault(fmt.Sprintf("a version has more than %d bytes", maxVersion))
				}
			}
			return nil
		}
		divisor = func(_, by any) error {
			if function[func(any) int64]("int64")(by) == 0 {
				return divisionByZero
			}
			return nil
		}
		decimals = func(a any, more ...any) error { return finite(slices.Concat([]any{a}, more)) }

		list    = func(value any) error { _, err := length(value); return err }
		longer  = func(value, _ any) error { return lengthens(value, 1) }
		alike   = func(value any) error { n, _ := length(value); return compares(value, n) }
		without = func(value any, others ...any) error { return compares(value, len(others)) }
		has     = func(_, value any) error { return listOrNil(value) }

		readable = func(text string) error {
			return lists(1 + strings.Count(text, ",") + strings.Count(text, "[") + strings.Count(text, "{"))
		}
		pretty = func(value any) error {
			text, err := json.Marshal(value)
			if err != nil { // the function has its own way to say so
				return nil
			}
			return m.makes(indentedSize(text), 0, 0)
		}
	)
	return map[string]any{
		"repeat": func(count int, text string) error {
			if count < 0 {
				return fault("the count is negative")
			}
			return m.makes(0, len(text), count)
		},
		"indent": m.indents, "nindent": m.indents,
		"replace": func(old, by, text string) error {
			return m.makes(len(text), len(by)-len(old), strings.Count(text, old))
		},
		"wrap":     func(width int, text string) error { return m.wraps(width, "\n", text) },
		"wrapWith": m.wraps,
		"cat":      texts, "quote": texts, "squote": texts,
		"join": func(separator string, list any) error {
			parts := function[func(any) []string]("toStrings")(list)
			size := 0
			for _, part := range parts {
				size += len(part)
			}
			return m.makes(size, len(separator), len(parts))
		},
		"split": split, "splitList": split,
		"splitn": func(separator string, n int, text string) error {
			if n >= 0 {
				return lists(min(n, strings.Count(text, separator)+1))
			}
			return split(separator, text)
		},
		"substr":  substring,
		"trimall": chars, "trimAll": chars,
		"semver":        func(text string) error { return version(text) },
		"semverCompare": func(constraint, text string) error { return version(constraint, text) },

		"div": divisor, "mod": divisor,
		"add1f": func(a any) error { return decimals(a) },
		"addf":  func(values ...any) error { return finite(values) },
		"subf":  decimals, "mulf": decimals,
		"divf": func(a any, by ...any) error {
			for _, value := range by {
				if function[func(any) float64]("float64")(value) == 0 {
					return divisionByZero
				}
			}
			return decimals(a, by...)
		},
		"until": func(count int) error {
			if count < 0 {
				return steps(0, count, -1)
			}
			return steps(0, count, 1)
		},
		"untilStep": steps,
		"seq":       sequence,

		"first": list, "mustFirst": list, "last": list, "mustLast": list,
		"rest": list, "mustRest": list, "initial": list, "mustInitial": list,
		"reverse": list, "mustReverse": list, "compact": list, "mustCompact": list,
		"append": longer, "mustAppend": longer, "push": longer, "mustPush": longer, "prepend": longer, "mustPrepend": longer,
		"uniq": alike, "mustUniq": alike, "without": without, "mustWithout": without, "has": has, "mustHas": has,
		"chunk": chunks, "mustChunk": chunks, "slice": slicing, "mustSlice": slicing,
		"concat": concatenated,

		"set": func(dict map[string]any, _ string, value any) error {
			switch {
			case dict == nil:
				return fault("there is no dict")
			case holds(value, dict):
				return fault("a dict cannot hold itself")
			}
			return nil
		},
		"dig":      digs,
		"fromJson": readable, "mustFromJson": readable,
		"toPrettyJson": pretty, "mustToPrettyJson": pretty,
		"urlParse": func(text string) error {
			if _, err := url.Parse(text); err != nil {
				return fault("the text is not a URL")
			}
			return nil
		},
		"urlJoin":    urlParts,
		"decryptAES": decrypts,
		"durationRound": func(value any) error {
			if _, ok := value.(time.Time); ok {
				return fault("how long ago a time was depends on the clock, so the file would change without cause")
			}
			return nil
		},
	}
}

// sprigSubstitutes returns, by the names of functions without prefix, what takes the place of sprig's.
func (m *machine) sprigSubstitutes() map[string]any {
	date := func(layout, text string) (time.Time, error) {
		// sprig takes a time without a zone for one in the node's zone.
		t, err := time.ParseInLocation(layout, text, time.UTC)
		if err != nil {
			return time.Time{}, fault("the text is not a date of that layout")
		}
		return t, nil
	}
	copied := func(value any) (any, error) {
		if value == nil {
			return nil, fault("there is nothing to copy")
		}
		return m.run.fresh(value)
	}
	return map[string]any{
		// sprig has them in any order. One of these orders is the same at each call, so that the file is at rest.
		"keys": func(dicts ...map[string]any) []string {
			keys := []string{}
			for _, dict := range dicts {
				keys = append(keys, slices.Sorted(maps.Keys(dict))...)
			}
			return keys
		},
		"values": func(dict map[string]any) []any {
			values := make([]any, 0, len(dict))
			for _, key := range slices.Sorted(maps.Keys(dict)) {
				values = append(values, dict[key])
			}
			return values
		},
		"deepCopy": copied, "mustDeepCopy": copied,
		"merge": m.forgiving("mustMerge"), "mustMerge": m.merging("mustMerge"),
		"mergeOverwrite": m.forgiving("mustMergeOverwrite"), "mustMergeOverwrite": m.merging("mustMergeOverwrite"),
		"toRawJson": hermetic["mustToRawJson"], // sprig's own panics where this one returns an error
		"toDate": func(layout, text string) time.Time {
			t, _ := date(layout, text) // without one, sprig has the zero time
			return t
		},
		"mustToDate": date,
		"fail": func(string) (string, error) {
			return "", fault("the template ends itself; its words are not shown, for they may hold a secret")
		},
	}
}

// makes tells whether a function may make a text of that many bytes: base, and each of them count times.
func (m *machine) makes(base, each, count int) error {
	each, count = max(0, each), max(0, count)
	if base > maxMade || (each > 0 && count > (maxMade-base)/each) {
		return fault(fmt.Sprintf("the text would have more than %d bytes", maxMade))
	}
	return m.run.room(base + each*count)
}

// textBytes returns how many bytes the texts among some values have.
func textBytes(values []any) int {
	size := 0
	for _, value := range values {
		if text, ok := value.(string); ok {
			size += len(text)
		}
	}
	return size
}

func (m *machine) indents(spaces int, text string) error {
	if spaces < 0 {
		return fault("the number of spaces is negative")
	}
	return m.makes(len(text)+1, spaces, 1+strings.Count(text, "\n"))
}

// wraps finds the number of breaks by making them of one byte: no text has more breaks than bytes.
func (m *machine) wraps(width int, separator, text string) error {
	wrapped := function[func(int, string, string) string]("wrapWith")(width, "\n", text)
	return m.makes(len(wrapped), len(separator)-1, strings.Count(wrapped, "\n")-strings.Count(text, "\n"))
}

// substring finds positions for which sprig's substr panics.
func substring(start, end int, text string) error {
	switch {
	case start < 0 && 0 <= end && end <= len(text),
		start >= 0 && (end < 0 || end > len(text)) && start <= len(text),
		start >= 0 && start <= end && end <= len(text):
		return nil
	}
	return fault("the positions are not in the text, or not in order")
}

// lists tells whether a function may make a list of that many values.
func lists(values int) error {
	if values > maxListed {
		return fault(fmt.Sprintf("there are more than %d values", maxListed))
	}
	return nil
}

// length returns how many values a list has.
func length(value any) (int, error) {
	switch v := reflect.ValueOf(value); v.Kind() {
	case reflect.Slice, reflect.Array:
		return v.Len(), nil
	case reflect.Invalid:
		return 0, fault("a list is needed, not nothing")
	default:
		return 0, fault("a list is needed, not a value of the kind " + v.Kind().String())
	}
}

func lengthens(list any, by int) error {
	n, err := length(list)
	if err != nil {
		return err
	}
	return lists(n + by)
}

func concatenated(values ...any) error {
	total := 0
	for _, value := range values {
		n, err := length(value)
		if err != nil {
			return err
		}
		total += n
	}
	return lists(total)
}

// compares bounds the comparisons of each value of a list with some others.
func compares(list any, others int) error {
	if _, err := length(list); err != nil {
		return err
	}
	s := scale{most: mostValue}
	s.add(list)
	if others > 0 && s.size() > maxCompared/others {
		return fault("the list is too long to compare its values with so many others")
	}
	return nil
}

// listOrNil finds what is neither a list nor nothing.
func listOrNil(list any) error {
	if list == nil {
		return nil
	}
	_, err := length(list)
	return err
}

// chunks finds sizes for which sprig's chunk panics. A negative one makes no chunks at all, if the list is short enough.
func chunks(size int, list any) error {
	n, err := length(list)
	if err != nil {
		return err
	}
	if size < 1 && math.Floor(float64(n-1)/float64(size)) != -1 {
		return fault("the size is less than 1")
	}
	return nil
}

// slicing finds positions for which sprig's slice panics.
func slicing(list any, positions ...any) error {
	n, err := length(list)
	if err != nil || n == 0 {
		return err
	}
	bounds := [2]int{0, n}
	for i, position := range positions[:min(len(positions), len(bounds))] {
		bounds[i] = function[func(any) int]("int")(position)
	}
	// What is behind the end of a list that was cut out of another one is in reach, too.
	if bounds[0] < 0 || bounds[0] > bounds[1] || bounds[1] > reflect.ValueOf(list).Cap() {
		return fault("the positions are not in the list, or not in order")
	}
	return nil
}

// steps finds ranges that are too long, or that sprig never ends since their last step leaves the integers.
func steps(start, stop, step int) error {
	var distance, stride uint64 // of two's complement: a difference never overflows
	switch {
	case start < stop && step > 0:
		distance, stride = uint64(stop)-uint64(start), uint64(step) //nolint:gosec // see above
	case start > stop && step < 0:
		distance, stride = uint64(start)-uint64(stop), -uint64(step) //nolint:gosec // see above
	default:
		return nil // an empty range
	}
	n := (distance-1)/stride + 1
	if n > maxListed {
		return lists(maxListed + 1)
	}
	last := start + int(n-1)*step // it is between start and stop
	if (step > 0 && last > math.MaxInt-step) || (step < 0 && last < math.MinInt-step) {
		return fault("the range ends beyond the integers")
	}
	return nil
}

// sequence finds the range of sprig's seq: its end, or its start and end, or its start, step and end.
func sequence(numbers ...int) error {
	towards := func(start, end int) int {
		if end < start {
			return -1
		}
		return 1
	}
	switch len(numbers) {
	case 1:
		by := towards(1, numbers[0])
		return steps(1, numbers[0]+by, by)
	case 2:
		by := towards(numbers[0], numbers[1])
		return steps(numbers[0], numbers[1]+by, by)
	case 3:
		return steps(numbers[0], numbers[2]+towards(numbers[0], numbers[2]), numbers[1])
	}
	return nil
}

// finite finds what has no decimal number, or makes one too long.
func finite(values []any) error {
	if len(values) > maxOperands {
		return fault(fmt.Sprintf("there are more than %d numbers", maxOperands))
	}
	toFloat := function[func(any) float64]("float64")
	for _, value := range values {
		if f := toFloat(value); math.IsNaN(f) || math.IsInf(f, 0) {
			return fault("a number is not finite")
		}
	}
	return nil
}

// digs finds arguments for which sprig's dig panics: keys, a value that takes the place of a missing one, and a dict.
func digs(arguments ...any) error {
	if len(arguments) < 3 {
		return fault("keys, a default and a dict are needed")
	}
	keys := arguments[:len(arguments)-2]
	for _, key := range keys {
		if _, ok := key.(string); !ok {
			return fault("a key is not a text")
		}
	}
	value, found := arguments[len(arguments)-1], true
	for _, key := range keys {
		if !found {
			return nil
		}
		dict, ok := value.(map[string]any)
		if !ok {
			return fault("a value on the way is not a dict")
		}
		value, found = dict[key.(string)] //nolint:errcheck // all keys are texts
	}
	return nil
}

// urlParts finds what sprig's urlJoin panics of.
func urlParts(dict map[string]any) error {
	for _, key := range []string{"scheme", "host", "path", "query", "opaque", "fragment", "userinfo"} {
		if value, found := dict[key]; found && reflect.ValueOf(value).Kind() != reflect.String {
			return fault("the value of " + key + " is not a text")
		}
	}
	if user, found := dict["userinfo"]; found {
		if _, err := url.Parse("proto://" + reflect.ValueOf(user).String() + "@host"); err != nil {
			return fault("the value of userinfo does not fit into a URL")
		}
	}
	return nil
}

// decrypts finds what sprig's decryptAES does not return of: another password leaves padding that makes no sense.
func decrypts(password, text string) (err error) {
	defer func() {
		if recover() != nil {
			err = fault("the text is not encrypted, or with another password")
		}
	}()
	if _, err := function[func(string, string) (string, error)]("decryptAES")(password, text); err != nil {
		return fault("the text is not base64")
	}
	return nil
}

// sprigSearches returns the checks of the functions that search with a regular expression. They do the search, as the
// functions do it afterwards, with its bounds and without making anything.
func (m *machine) sprigSearches() map[string]any {
	checks := map[string]any{
		"regexMatch": func(pattern, text string) error {
			if _, err := syntax.Parse(pattern, syntax.Perl); err != nil {
				return nil // sprig says that nothing matches
			}
			return searches("regexMatch", pattern, text)
		},
	}
	for _, name := range []string{"mustRegexMatch", "regexFind", "mustRegexFind"} {
		checks[name] = func(pattern, text string) error { return searches(name, pattern, text) }
	}
	for _, name := range []string{"regexFindAll", "mustRegexFindAll", "regexSplit", "mustRegexSplit"} {
		checks[name] = func(pattern, text string, _ int) error {
			found := 0
			return eachMatch(name, pattern, text, func(int) error { found++; return lists(found) })
		}
	}
	for _, name := range []string{"regexReplaceAll", "mustRegexReplaceAll"} {
		checks[name] = func(pattern, text, by string) error {
			return m.replaces(name, pattern, text, by, strings.Count(by, "$"))
		}
	}
	for _, name := range []string{"regexReplaceAllLiteral", "mustRegexReplaceAllLiteral"} {
		checks[name] = func(pattern, text, by string) error { return m.replaces(name, pattern, text, by, 0) }
	}
	return checks
}

// searches bounds the search for a first match.
func searches(name, pattern, text string) error {
	s, err := newSearch(sprigPrefix+name, pattern, text)
	if err != nil {
		return err
	}
	_, err = s.find(0)
	return err
}

// eachMatch bounds the search for all matches, and calls visit with the length of each.
func eachMatch(name, pattern, text string, visit func(length int) error) error {
	s, err := newSearch(sprigPrefix+name, pattern, text)
	if err != nil {
		return err
	}
	for from := 0; from <= len(text); {
		match, err := s.find(from)
		if err != nil || match == nil {
			return err
		}
		if err := visit(match[1] - match[0]); err != nil {
			return err
		}
		_, width := utf8.DecodeRuneInString(text[from:])
		from = max(from+max(width, 1), match[1])
	}
	return nil
}

// replaces bounds what becomes of a text whose matches are replaced. Each reference in the replacement stands for no more
// than the whole match.
func (m *machine) replaces(name, pattern, text, by string, references int) error {
	size := len(text)
	err := eachMatch(name, pattern, text, func(length int) error {
		size += len(by) + (references-1)*length
		if size > maxMade {
			return m.makes(size, 0, 0)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.makes(size, 0, 0)
}

// references counts how often a value refers to each dict and each pointer that is in it. Its size and depth are bounded, as
// those of all that a function is given.
func references(value any) map[uintptr]int {
	counts := make(map[uintptr]int)
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Interface:
			walk(v.Elem())
		case reflect.Pointer:
			counts[v.Pointer()]++
			walk(v.Elem())
		case reflect.Map:
			counts[v.Pointer()]++
			for pairs := v.MapRange(); pairs.Next(); {
				walk(pairs.Value())
			}
		case reflect.Slice, reflect.Array:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() { // nobody comes to a dict by another one
					walk(v.Field(i))
				}
			}
		}
	}
	walk(reflect.ValueOf(value))
	delete(counts, 0) // nil is no dict
	return counts
}

// holds tells whether a value is a dict, or holds it, and so cannot be put into it: whoever prints a dict that holds itself
// never ends.
func holds(value any, dict map[string]any) bool {
	return references(value)[reflect.ValueOf(dict).Pointer()] > 0
}

// merge is a function of sprig that merges dicts into the first one.
type merge = func(dict map[string]any, others ...map[string]any) (any, error)

// merging returns a function of sprig that merges dicts, made safe. It works on the dicts while it goes through them, and puts
// what it finds in one into the other, so it could make a dict that holds itself, and even go through that for ever. It cannot
// where nothing in the other dict is found twice, in there or in the first one. Where something is, the other dict is copied
// before.
func (m *machine) merging(name string) merge {
	original := function[merge](name)
	return func(dict map[string]any, others ...map[string]any) (any, error) {
		for _, other := range others {
			if isShared(other, dict) {
				fresh, err := m.run.freshFields(other)
				if err != nil {
					return nil, err
				}
				other = fresh
			}
			merged, err := original(dict, other)
			if err != nil {
				return nil, err
			}
			dict, _ = merged.(map[string]any) // it is the dict, or a new one if that was nil
		}
		return dict, nil
	}
}

// isShared tells whether a dict has something in it that it holds twice, or another dict as well.
func isShared(dict, other map[string]any) bool {
	elsewhere := references(other)
	for place, times := range references(dict) {
		if times > 1 || elsewhere[place] > 0 {
			return true
		}
	}
	return false
}

// forgiving returns the same with an empty text in place of what goes wrong in the merge itself, as sprig has it.
func (m *machine) forgiving(name string) merge {
	strict := m.merging(name)
	return func(dict map[string]any, others ...map[string]any) (any, error) {
		merged, err := strict(dict, others...)
		if _, ours := errors.AsType[fault](err); err != nil && !ours {
			return "", nil
		}
		return merged, err
	}
}
