package spec

import (
	"encoding/json"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// maxDepth of nested YAML. An alias inside its own anchor is a nesting without end.
	maxDepth = 64
	// walkBudget bounds what the walk may visit, nodes and bytes of text: twice what a text without aliases can cost.
	walkBudget = 2 * maxObjectsText
)

// walker walks the nodes of the parameter objects. Aliases make it possible to say much with few bytes, so that what
// they expand to is charged against a budget.
type walker struct {
	findings *findings
	report   func(node *yaml.Node, format string, args ...any) // adds a fault of the present object
	check    func(Template) error                              // tells what is wrong with a template; nil: nobody knows
	budget   int
	ended    bool // before the end of the text, and a fault says why
}

// over tells that what the walk finds from here on is of no use to anybody.
func (w *walker) over() bool { return w.ended || w.findings.full() }

// visit charges a node. It is false when the node must not be looked into: the fault is added already.
func (w *walker) visit(node *yaml.Node, depth int) bool {
	if w.over() {
		return false
	}
	w.budget -= 1 + len(node.Value)
	switch {
	case w.budget < 0:
		w.ended = true
		w.report(node, "the aliases expand to too much: write fewer of them")
		return false
	case depth > maxDepth:
		w.ended = true
		w.report(node, "the YAML is nested deeper than %d: flatten it", maxDepth)
		return false
	}
	return true
}

// resolve follows an alias to its anchor.
func (w *walker) resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias // an anchor is never on an alias: the parser refuses that
	}
	return node
}

type pair struct{ key, value *yaml.Node }

// pairs returns the keys and values of a mapping in their order, each key once, followed by those that merge keys (<<)
// bring in.
func (w *walker) pairs(node *yaml.Node, depth int) []pair {
	node = w.resolve(node)
	if !w.visit(node, depth) {
		return nil
	}
	var pairs []pair
	var merges []*yaml.Node
	seen := make(map[string]int, len(node.Content)/2) // key -> line
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := w.resolve(node.Content[i]), node.Content[i+1]
		if !w.visit(key, depth) {
			return nil
		}
		switch line, double := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			w.report(node.Content[i], "a key must be a text: write it in one word")
		case key.ShortTag() == "!!merge":
			merges = append(merges, value)
		case double:
			w.report(node.Content[i], "key %s stands in line %d already: keep one of them", quote(key.Value), line)
		default:
			seen[key.Value] = key.Line
			pairs = append(pairs, pair{key, value})
		}
	}
	for _, merge := range merges {
		merge = w.resolve(merge)
		sources := []*yaml.Node{merge}
		if merge.Kind == yaml.SequenceNode {
			sources = merge.Content
		}
		for _, source := range sources {
			if !w.visit(source, depth) {
				return nil
			}
			if w.resolve(source).Kind != yaml.MappingNode {
				w.report(source, "the value of << must be an alias of keys and values: write it like \"<<: *defaults\"")
				continue
			}
			for _, p := range w.pairs(source, depth+1) {
				if _, ok := seen[p.key.Value]; !ok {
					seen[p.key.Value] = p.key.Line
					pairs = append(pairs, p)
				}
			}
		}
	}
	return pairs
}

// args reads secretArgs into canonical JSON: what vault-csi-provider sends, but for numbers beyond 64 bits and
// timestamps, which keep what their author wrote.
func (e *entry) args() string {
	node := e.fields["secretArgs"]
	if node == nil {
		return ""
	}
	if node.Kind != yaml.MappingNode {
		e.fault(node, "secretArgs must be keys and values: write each argument in a line of its own, like "+
			"\"common_name: app.example\"")
		return ""
	}
	before := e.findings.count()
	value := e.value(node, 1)
	if e.findings.count() > before || e.over() {
		return ""
	}
	text, err := json.Marshal(value)
	if err != nil {
		e.fault(node, "secretArgs cannot be written as JSON: use texts, numbers, truth values, lists and keys only")
		return ""
	}
	return string(text)
}

// value turns a node into what json.Marshal writes as the same value. Faults name the line and never the value: an
// argument may be a secret.
func (w *walker) value(node *yaml.Node, depth int) any {
	node = w.resolve(node)
	switch node.Kind {
	case yaml.MappingNode:
		m := make(map[string]any)
		for _, p := range w.pairs(node, depth) {
			m[p.key.Value] = w.value(p.value, depth+1)
			if w.over() {
				return nil
			}
		}
		return m
	case yaml.SequenceNode:
		if !w.visit(node, depth) {
			return nil
		}
		list := []any{}
		for _, item := range node.Content {
			list = append(list, w.value(item, depth+1))
			if w.over() {
				return nil
			}
		}
		return list
	}
	if !w.visit(node, depth) {
		return nil
	}
	switch tag := node.ShortTag(); tag {
	case "!!null":
		return nil
	case "!!str", "!!timestamp", "!!merge":
		return node.Value
	case "!!bool":
		if b, err := strconv.ParseBool(strings.ToLower(node.Value)); err == nil {
			return b
		}
		w.report(node, "an argument is tagged !!bool and is none: write true or false")
	case "!!int", "!!float":
		if number, ok := jsonNumber(node.Value); ok {
			return number
		}
		w.report(node, "an argument is a number that JSON cannot express: quote it if it is meant as a text")
	default:
		w.report(node, "an argument has the tag %s: only texts, numbers, truth values, lists and keys can be sent", quote(tag))
	}
	return nil
}

// maxNumber is the longest text of a number. Reading a number takes the square of its length.
const maxNumber = 1024

var wholeNumber = regexp.MustCompile(`^[-+]?[0-9][0-9_]*$`)

// jsonNumber writes a number of YAML as JSON does: whole numbers exactly, whatever their base and size (0x1f, 0644,
// 0o644, 0b101, 1_000), others as the shortest text of the same 64-bit float.
func jsonNumber(text string) (json.Number, bool) {
	if len(text) > maxNumber {
		return "", false
	}
	plain := strings.ReplaceAll(text, "_", "")
	if n, ok := new(big.Int).SetString(strings.TrimPrefix(plain, "+"), 0); ok {
		return json.Number(n.String()), true
	}
	if wholeNumber.MatchString(text) { // digits with a leading zero that are not octal, such as 089
		n, ok := new(big.Int).SetString(strings.TrimPrefix(plain, "+"), 10)
		if !ok {
			return "", false
		}
		return json.Number(n.String()), true
	}
	x, err := strconv.ParseFloat(plain, 64)
	if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
		return "", false
	}
	written, err := json.Marshal(x)
	return json.Number(written), err == nil
}
