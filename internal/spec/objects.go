package spec

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Bounds of what a tenant may ask for. The driver's own bound is 4 MiB for a whole request.
const (
	// maxObjectsText is room for a template at its own bound, and as much again for its indentation and all the rest.
	maxObjectsText = 2 * maxTemplate // bytes of YAML; its nodes take up to two hundred times as much memory
	maxLines       = 10000           // of the YAML, those of templates included
	maxBrackets    = 20000           // "{" and "[" in the YAML, wherever they stand, those of templates included
	maxTemplate    = 64 << 10        // bytes of one template
	maxDelimiter   = 16              // bytes of one delimiter of a template
	maxObjects     = 1000
	maxSources     = 100  // distinct requests to Vault for one volume
	maxText        = 4096 // bytes of one text in an object; a path in Linux is no longer
	maxNamePart    = 255  // bytes of one component of a file name in Linux
	maxObjectKeys  = 100  // keys of one object, the unknown ones included: each of them is looked into
)

var (
	objectKeys = slices.Concat([]string{
		"objectName", "secretPath", "secretKey", "method", "secretArgs", "encoding", "filePermission", "format", "template",
	}, templateKeys)
	// templateKeys say how a template is to be read.
	templateKeys = []string{"leftDelimiter", "rightDelimiter", "errorOnMissingKey"}
)

// parseObjects reads the parameter objects, a YAML list. It walks the nodes rather than decoding into a struct, so that
// a fault can say where it is, and so that numbers keep the text that their author wrote. Each template is shown to
// check, if there is one.
func parseObjects(text string, mode fs.FileMode, check func(Template) error, f *findings) []Object {
	if len(text) > maxObjectsText {
		f.add("parameter objects has %d bytes, more than %d: split the class in two", len(text), maxObjectsText)
		return nil
	}
	// The YAML package keeps each comment, and at the end of each nested block it looks through the comments before. A
	// comment ends with its line, so that the number of lines bounds theirs. A line that opens few blocks leaves the depth to
	// the indentation, which takes bytes. Brackets that are the keys of one another take more time than other bytes. None of
	// this needs an understanding of quotes and comments, and a template has a line and an action for every 8 of its bytes.
	if n := countLines(text); n > maxLines {
		f.add("parameter objects has %d lines, more than %d: split the class in two", n, maxLines)
		return nil
	}
	if n := strings.Count(text, "{") + strings.Count(text, "["); n > maxBrackets {
		f.add("parameter objects has %d opening brackets, more than %d: split the class in two, or write the keys of an "+
			"object below one another, without { and [", n, maxBrackets)
		return nil
	}
	if manyBlocks.MatchString(text) {
		f.add("parameter objects has a line that begins with more than 16 of the signs - ? and : in a row: write fewer of them")
		return nil
	}
	var document, second yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(text))
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		f.add("parameter objects is not valid YAML, %s: mind the indentation and quote special characters", yamlCause(err))
		return nil
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		f.add("parameter objects has more after its first YAML document: remove the line --- and what follows it")
		return nil
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.SequenceNode {
		f.add("parameter objects is not a YAML list: begin each object with \"- objectName: ...\"")
		return nil
	}
	list := document.Content[0].Content
	if len(list) == 0 || len(list) > maxObjects {
		f.add("parameter objects lists %d objects: list 1 to %d", len(list), maxObjects)
		return nil
	}

	w := walker{findings: f, check: check, budget: walkBudget}
	objects := make([]Object, 0, len(list))
	for i, node := range list {
		objects = append(objects, parseObject(&w, i, node, mode))
		if w.over() {
			return nil
		}
	}
	checkClashes(objects, f)
	checkSources(objects, f)
	return objects
}

// manyBlocks finds a line such as "- - - a", which would open one more block by each sign.
var manyBlocks = regexp.MustCompile(`(?:^|[\n\r\x{85}\x{2028}\x{2029}])[ \t]*(?:[-?:][ \t]+){17}`)

// countLines counts what YAML takes for lines.
func countLines(text string) int {
	lines := 1 - strings.Count(text, "\r\n") // which is one end of a line
	for _, end := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
		lines += strings.Count(text, end)
	}
	return lines
}

// yamlCause takes from an error of the YAML package what helps an author, in a bounded form.
func yamlCause(err error) string {
	cause := strings.TrimPrefix(err.Error(), "yaml: ")
	if len(cause) > maxQuoted || hasControl(cause) {
		return quote(cause)
	}
	return cause
}

// entry is one object while it is read.
type entry struct {
	*walker
	label  string                // such as objects[1] "db-password"
	keys   map[string]*yaml.Node // key -> the node of the key itself
	fields map[string]*yaml.Node // key -> the node of its value
}

// fault adds a fault of the entry at a node. The format goes on from "objects[1] "db-password", line 7: ".
func (e *entry) fault(node *yaml.Node, format string, args ...any) {
	e.findings.add("%s, line %d: %s", e.label, node.Line, fmt.Sprintf(format, args...))
}

func parseObject(w *walker, index int, node *yaml.Node, mode fs.FileMode) Object {
	e := &entry{
		walker: w, label: fmt.Sprintf("objects[%d]", index),
		keys: make(map[string]*yaml.Node), fields: make(map[string]*yaml.Node),
	}
	w.report = e.fault
	before := w.findings.count()
	if target := w.resolve(node); target.Kind != yaml.MappingNode {
		e.fault(node, "an object must have keys and values: begin it with \"objectName: ...\"")
		return Object{}
	} else if name := scalarOf(target, "objectName"); name != "" {
		e.label += " " + quote(name)
	}
	if !e.readFields(node) {
		return Object{}
	}

	o := Object{
		Name:     e.name(node),
		Source:   e.source(node),
		Key:      e.text("secretKey", maxText),
		Format:   e.format(),
		Template: e.template(),
		Encoding: e.encoding(),
		Mode:     e.permission(mode),
	}
	if o.Encoding != UTF8 && e.isEmpty("secretKey") && e.isEmpty("template") {
		e.fault(e.fields["encoding"], "encoding needs a secretKey: without one the file holds the whole answer")
	}
	e.exclude("template", "makes the whole file", "secretKey", "encoding", "format")
	e.exclude("format", "is about the whole answer", "secretKey")
	if o.Template.Text != "" && w.check != nil && w.findings.count() == before {
		if err := w.check(o.Template); err != nil {
			e.fault(e.keys["template"], "%v", err) // it names the template itself, with a line within
		}
	}
	return o
}

// exclude adds a fault for each of some keys that stands beside another one.
func (e *entry) exclude(key, what string, others ...string) {
	if e.isEmpty(key) {
		return
	}
	for _, other := range others {
		if !e.isEmpty(other) {
			e.fault(e.fields[other], "%s does not go with %s, which %s: remove one of them", other, key, what)
		}
	}
}

// scalarOf returns the text of a key of a mapping, for a label; "" when it is not simply there.
func scalarOf(mapping *yaml.Node, key string) string {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key && mapping.Content[i+1].Kind == yaml.ScalarNode {
			return mapping.Content[i+1].Value
		}
	}
	return ""
}

// readFields fills e.fields with the known keys that have a value. It is false when that made no sense at all.
func (e *entry) readFields(node *yaml.Node) bool {
	pairs := e.pairs(node, 0)
	if len(pairs) > maxObjectKeys {
		e.fault(node, "an object of %d keys cannot be meant: mind the indentation", len(pairs))
		return false
	}
	for _, p := range pairs {
		if e.over() {
			return false
		}
		switch key := p.key.Value; {
		case slices.Contains(objectKeys, key):
			value := e.resolve(p.value)
			if value.Kind == yaml.ScalarNode && !e.visit(value, 1) {
				return false
			}
			if value.ShortTag() != "!!null" {
				e.keys[key], e.fields[key] = p.key, value
			}
		default:
			advice := "the keys are " + strings.Join(objectKeys, ", ")
			if near := Nearest(key, objectKeys); near != "" {
				advice = "did you mean " + near + "?"
			}
			e.fault(p.key, "unknown key %s: %s", quote(key), advice)
		}
	}
	return !e.over()
}

// text returns the value of a key as it is written, numbers included, or "" when there is none.
func (e *entry) text(key string, most int) string {
	node := e.fields[key]
	switch {
	case node == nil:
		return ""
	case node.Kind != yaml.ScalarNode:
		e.fault(node, "%s must be a text: write it in one line after the key", key)
		return ""
	case len(node.Value) > most:
		e.fault(node, "%s is longer than %d bytes: shorten it", key, most)
		return ""
	}
	return node.Value
}

// isEmpty tells whether a key is absent or an empty text.
func (e *entry) isEmpty(key string) bool {
	node := e.fields[key]
	return node == nil || (node.Kind == yaml.ScalarNode && node.Value == "")
}

// name reads objectName, by the rules of the driver and of Linux.
func (e *entry) name(object *yaml.Node) string {
	if e.isEmpty("objectName") {
		e.fault(object, "objectName is missing: name the file to write")
		return ""
	}
	name := e.text("objectName", maxText)
	if err := checkName(name); name != "" && err != nil {
		e.fault(e.fields["objectName"], "objectName %s %v", quote(name), err)
		return ""
	}
	return name
}

func checkName(name string) error {
	switch {
	case hasControl(name):
		return errors.New("has a control character in it: remove it")
	case strings.HasPrefix(name, "/"):
		return errors.New("is absolute: write it relative to the volume, without the leading slash")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case strings.HasPrefix(part, ".."):
			return errors.New(`has a part that begins with "..": rename it`)
		case len(part) > maxNamePart:
			return fmt.Errorf("has a part of %d bytes, more than %d: shorten it", len(part), maxNamePart)
		}
	}
	if clean := path.Clean(name); clean == "." {
		return errors.New("names the volume itself: name a file in it")
	} else if clean != name {
		return fmt.Errorf("is not a clean path: write %s", quote(clean))
	}
	return nil
}

// checkClashes finds objects that would write the same file, or a file where another one needs a directory.
func checkClashes(objects []Object, f *findings) {
	first := make(map[string]int, len(objects)) // name -> index of the first object of that name
	for i, o := range objects {
		if o.Name == "" {
			continue
		}
		if j, ok := first[o.Name]; ok {
			f.add("objects[%d] %s has the same objectName as objects[%d]: rename one of them", i, quote(o.Name), j)
			continue
		}
		first[o.Name] = i
	}
	for i, o := range objects {
		if first[o.Name] != i {
			continue
		}
		for k := range len(o.Name) {
			if o.Name[k] != '/' {
				continue
			}
			if j, ok := first[o.Name[:k]]; ok {
				f.add("objects[%d] %s needs a directory where objects[%d] %s is a file: rename one of them",
					i, quote(o.Name), j, quote(o.Name[:k]))
			}
		}
	}
}

// checkSources bounds what a volume costs Vault: each source is a request, and a lease or a secret to hold.
func checkSources(objects []Object, f *findings) {
	sources := Class{Objects: objects}.Sources()
	sources = slices.DeleteFunc(sources, func(s Source) bool { return s.Path == "" }) // of objects with faults
	if n := len(sources); n > maxSources {
		f.add("parameter objects needs %d requests to Vault (different secretPath, method or secretArgs), more than %d: "+
			"split the class in two", n, maxSources)
	}
}

// source reads what to ask Vault for. An object with a template may leave that to the template.
func (e *entry) source(object *yaml.Node) Source {
	if e.isEmpty("secretPath") && !e.isEmpty("template") {
		for _, key := range []string{"method", "secretArgs"} {
			if !e.isEmpty(key) {
				e.fault(e.fields[key], "%s needs a secretPath: add it, or remove %[1]s and let the template ask by itself", key)
			}
		}
		return Source{}
	}
	return Source{Method: e.method(), Path: e.path(object), Args: e.args()}
}

var methods = []string{"GET", "LIST", "PUT", "POST"}

func (e *entry) method() string {
	method := strings.ToUpper(e.text("method", maxText))
	args := e.fields["secretArgs"]
	switch {
	case method == "" && args != nil && e.isEmpty("method"):
		e.fault(args, "secretArgs need a method that sends them: add \"method: PUT\"")
	case method == "":
		return "GET"
	case !slices.Contains(methods, method):
		e.fault(e.fields["method"], "unknown method %s: write GET, LIST, PUT or POST", quote(e.fields["method"].Value))
	case args != nil && method != "PUT" && method != "POST":
		e.fault(args, "method %s sends no secretArgs: use \"method: PUT\", or put them into the ?query of secretPath", method)
	}
	return method
}

// path reads secretPath into its one canonical form, so that equal sources compare equal.
func (e *entry) path(object *yaml.Node) string {
	if e.isEmpty("secretPath") {
		e.fault(object, "secretPath is missing: name the path in Vault to read")
		return ""
	}
	text := e.text("secretPath", maxText)
	if text == "" {
		return ""
	}
	source, err := SourcePath(text)
	if err != nil {
		e.fault(e.fields["secretPath"], "secretPath %s %v", quote(text), err)
	}
	return source
}

var encodingNames = map[Encoding]string{UTF8: "utf-8", Base64: "base64", Hex: "hex"}

func (e *entry) encoding() Encoding {
	text := e.text("encoding", maxText)
	if text == "" {
		return UTF8
	}
	for encoding, name := range encodingNames {
		if name == strings.ToLower(text) {
			return encoding
		}
	}
	e.fault(e.fields["encoding"], "unknown encoding %s: write utf-8, base64 or hex", quote(text))
	return UTF8
}

var formatNames = map[Format]string{
	FormatJSON: "json", FormatMap: "map", FormatData: "data", FormatEnv: "env", FormatProperties: "properties",
}

// format reads how the whole answer is written. The default is said out loud, and where no whole answer is written there
// is no format at all, so that equal objects compare equal.
func (e *entry) format() Format {
	if e.isEmpty("format") {
		if e.isEmpty("secretKey") && e.isEmpty("template") {
			return FormatJSON
		}
		return 0
	}
	text := e.text("format", maxText)
	for format, name := range formatNames {
		if name == strings.ToLower(text) {
			return format
		}
	}
	if text != "" {
		e.fault(e.fields["format"], "unknown format %s: write json, map, data, env or properties", quote(text))
	}
	return 0
}

// template reads a template and how it is to be read. An empty one is none.
func (e *entry) template() Template {
	if e.isEmpty("template") {
		for _, key := range templateKeys {
			if !e.isEmpty(key) {
				e.fault(e.fields[key], "%s needs a template: add it, or remove %[1]s", key)
			}
		}
		return Template{}
	}
	t := Template{
		Text: e.text("template", maxTemplate),
		Left: e.delimiter("leftDelimiter"), Right: e.delimiter("rightDelimiter"),
		ErrorOnMissingKey: e.truth("errorOnMissingKey"),
	}
	const left, right = "{{", "}}"
	t.Left, t.Right = cmp.Or(t.Left, left), cmp.Or(t.Right, right)
	if t.Left == t.Right {
		e.fault(e.keys["template"], "the delimiters of the template are both %s: let them differ", quote(t.Left))
	}
	if t.Left == left && t.Right == right {
		t.Left, t.Right = "", "" // equal templates compare equal
	}
	return t
}

func (e *entry) delimiter(key string) string {
	text := e.text(key, maxDelimiter)
	if hasControl(text) || strings.ContainsFunc(text, unicode.IsSpace) {
		e.fault(e.fields[key], "%s %s has a space or a control character in it: write it without", key, quote(text))
		return ""
	}
	return text
}

// truth reads a truth value. As with numbers, quotes around it change nothing.
func (e *entry) truth(key string) bool {
	text := e.text(key, maxText)
	if text == "" {
		return false
	}
	truth, err := strconv.ParseBool(text)
	if err != nil {
		e.fault(e.fields[key], "%s %s is not a truth value: write true or false", key, quote(text))
	}
	return truth
}

func (e *entry) permission(otherwise fs.FileMode) fs.FileMode {
	if e.isEmpty("filePermission") {
		return otherwise
	}
	text := e.text("filePermission", maxText)
	if text == "" {
		return otherwise
	}
	mode, err := parsePermission(text)
	if err != nil {
		e.fault(e.fields["filePermission"], "filePermission %s %v", quote(text), err)
	}
	return mode
}

var (
	octalText   = regexp.MustCompile(`^0o?([0-7]+)$`)
	decimalText = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)
)

// parsePermission reads a file mode as an author writes it: octal by YAML 1.1 (0644) or by YAML 1.2 (0o644), or decimal
// (420). The text decides, not its YAML type, so that quotes around it change nothing.
func parsePermission(text string) (fs.FileMode, error) {
	if m := octalText.FindStringSubmatch(text); m != nil {
		if n, err := strconv.ParseUint(m[1], 8, 32); err == nil && n <= 0o777 {
			return fs.FileMode(n), nil
		}
		return 0, errors.New("is more than 0777: write the bits for owner, group and others only")
	}
	if decimalText.MatchString(text) {
		if n, err := strconv.ParseUint(text, 10, 32); err == nil && n <= 0o777 {
			return fs.FileMode(n), nil
		}
		if n, err := strconv.ParseUint(text, 8, 32); err == nil && n <= 0o777 {
			return 0, fmt.Errorf("is the decimal number; write 0%s", text)
		}
		return 0, errors.New("is more than 511, which is 0777: write it in octal, like 0644")
	}
	return 0, errors.New("is not a file mode: write it in octal, like 0644")
}
