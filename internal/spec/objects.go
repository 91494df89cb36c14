package spec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of what a tenant may ask for. The driver's own bound is 4 MiB for a whole request.
const (
	maxObjectsText = 64 << 10 // bytes of YAML; its nodes take up to two hundred times as much memory
	maxBrackets    = 2000     // "{" and "[" in the YAML, wherever they stand
	maxObjects     = 1000
	maxSources     = 100  // distinct requests to Vault for one volume
	maxText        = 4096 // bytes of one text in an object; a path in Linux is no longer
	maxNamePart    = 255  // bytes of one component of a file name in Linux
	maxObjectKeys  = 100  // keys of one object, the unknown ones included: each of them is looked into
)

// notYet goes on from the name of what a later version will have. To ignore that would be to promise what we do not keep.
const notYet = "is not supported yet by this version of Leasehold: remove it"

// objectKeys are the keys of an object, those of a later version included: a wrong key is compared with all of them.
var (
	objectKeys = []string{
		"objectName", "secretPath", "secretKey", "method", "secretArgs", "encoding", "filePermission",
	}
	laterObjectKeys = []string{"template", "leftDelimiter", "rightDelimiter", "errorOnMissingKey", "format"}
)

// parseObjects reads the parameter objects, a YAML list. It walks the nodes rather than decoding into a struct, so that
// a fault can say where it is, and so that numbers keep the text that their author wrote.
func parseObjects(text string, mode fs.FileMode, f *findings) []Object {
	if len(text) > maxObjectsText {
		f.add("parameter objects has %d bytes, more than %d: split the class in two", len(text), maxObjectsText)
		return nil
	}
	// The time of the YAML package can grow with the square of the depth of brackets. Their number bounds that depth, and
	// unlike the depth it needs no understanding of comments and quotes, which may hide closing ones. A thousand objects
	// in braces, each with arguments in braces, stay below.
	if n := strings.Count(text, "{") + strings.Count(text, "["); n > maxBrackets {
		f.add("parameter objects has %d opening brackets, more than %d: split the class in two, or write the keys of an "+
			"object below one another, without { and [", n, maxBrackets)
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

	w := walker{findings: f, budget: walkBudget}
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
	label  string // such as objects[1] "db-password"
	fields map[string]*yaml.Node
}

// fault adds a fault of the entry at a node. The format goes on from "objects[1] "db-password", line 7: ".
func (e *entry) fault(node *yaml.Node, format string, args ...any) {
	e.findings.add("%s, line %d: %s", e.label, node.Line, fmt.Sprintf(format, args...))
}

func parseObject(w *walker, index int, node *yaml.Node, mode fs.FileMode) Object {
	e := &entry{walker: w, label: fmt.Sprintf("objects[%d]", index), fields: map[string]*yaml.Node{}}
	w.report = e.fault
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
		Source:   Source{Method: e.method(), Path: e.path(node), Args: e.args()},
		Key:      e.text("secretKey"),
		Encoding: e.encoding(),
		Mode:     e.permission(mode),
	}
	if o.Encoding != UTF8 && e.isEmpty("secretKey") {
		e.fault(e.fields["encoding"], "encoding needs a secretKey: without one the file holds the whole answer as JSON")
	}
	return o
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
				e.fields[key] = value
			}
		case slices.Contains(laterObjectKeys, key):
			e.fields[key] = p.value
			e.fault(p.key, "%s "+notYet, key)
		default:
			advice := "the keys are " + strings.Join(objectKeys, ", ")
			if near := nearest(key, slices.Concat(objectKeys, laterObjectKeys)); near != "" {
				advice = "did you mean " + near + "?"
			}
			e.fault(p.key, "unknown key %s: %s", quote(key), advice)
		}
	}
	return !e.over()
}

// text returns the value of a key as it is written, numbers included, or "" when there is none.
func (e *entry) text(key string) string {
	node := e.fields[key]
	switch {
	case node == nil:
		return ""
	case node.Kind != yaml.ScalarNode:
		e.fault(node, "%s must be a text: write it in one line after the key", key)
		return ""
	case len(node.Value) > maxText:
		e.fault(node, "%s is longer than %d bytes: shorten it", key, maxText)
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
	name := e.text("objectName")
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

var methods = []string{"GET", "LIST", "PUT", "POST"}

func (e *entry) method() string {
	method := strings.ToUpper(e.text("method"))
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
		if e.fields["template"] == nil {
			e.fault(object, "secretPath is missing: name the path in Vault to read")
		}
		return ""
	}
	text := e.text("secretPath")
	if text == "" {
		return ""
	}
	source, err := parseSourcePath(text)
	if err != nil {
		e.fault(e.fields["secretPath"], "secretPath %s %v", quote(text), err)
	}
	return source
}

func parseSourcePath(text string) (string, error) {
	text, query, _ := strings.Cut(text, "?")
	text = strings.Trim(strings.TrimPrefix(strings.Trim(text, "/")+"/", "v1/"), "/")
	if text == "" {
		return "", errors.New("names no path: write it like database/creds/app")
	}
	if hasControl(text) {
		return "", errors.New("has a control character in it: remove it")
	}
	for part := range strings.SplitSeq(text, "/") {
		if part == "." || part == ".." {
			return "", errors.New(`has a part "." or "..": write the path out`)
		}
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", errors.New("has a ?query that cannot be read: write it like ?version=3, with special characters as %XX")
	}
	text = path.Clean(text) // several slashes count as one, as Vault's own client has it
	if len(values) > 0 {
		text += "?" + values.Encode()
	}
	return text, nil
}

func (e *entry) encoding() Encoding {
	switch text := strings.ToLower(e.text("encoding")); text {
	case "", "utf-8":
		return UTF8
	case "base64":
		return Base64
	case "hex":
		return Hex
	default:
		e.fault(e.fields["encoding"], "unknown encoding %s: write utf-8, base64 or hex", quote(e.fields["encoding"].Value))
		return UTF8
	}
}

func (e *entry) permission(otherwise fs.FileMode) fs.FileMode {
	if e.isEmpty("filePermission") {
		return otherwise
	}
	text := e.text("filePermission")
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
