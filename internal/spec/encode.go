package spec

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Parameters returns the parameters of a SecretProviderClass that mean this class: [Operator.Parse] makes an equal class
// of them. Equal classes have equal parameters. What a class leaves to the operator or to the defaults is left out: an
// empty field of Vault, a zero Lifecycle, and each setting of a Lifecycle that has its default. So an operator's default
// comes back where a class had overruled it by nothing (no namespace, no vaultSkipTLSVerify).
//
// The operator's own files, the contents of a nodePublishSecretRef and the pod's token are no parameters. A class whose
// objects take more text than a parameter may have cannot be said at all; Parse refuses what is returned for it.
func (c Class) Parameters() map[string]string {
	parameters := make(map[string]string)
	set := func(name, value string) {
		if value != "" {
			parameters[name] = value
		}
	}
	v := c.Vault
	set("roleName", v.Role)
	set("vaultAddress", v.Address)
	set("vaultNamespace", edged("/", v.Namespace))
	if strings.HasPrefix(v.AuthPath, "auth/") { // Parse takes the first of them away
		set("vaultAuthMountPath", edged("/", "auth/"+v.AuthPath))
	} else {
		set("vaultAuthMountPath", edged("/", v.AuthPath))
	}
	set("audience", v.Audience)
	for name, file := range map[string]File{
		"vaultCACertPath": v.TLS.CACert, "vaultCADirectory": v.TLS.CADirectory,
		"vaultTLSClientCertPath": v.TLS.ClientCert, "vaultTLSClientKeyPath": v.TLS.ClientKey,
	} {
		if file.Root != "" {
			set(name, edged("./", file.Path))
		}
	}
	set("vaultTLSServerName", v.TLS.ServerName)
	if v.TLS.SkipVerify {
		set("vaultSkipTLSVerify", "true")
	}
	if c.Lifecycle != (Lifecycle{}) {
		maps.Copy(parameters, c.Lifecycle.parameters())
	}
	set("objects", objectsText(c.Objects))
	return parameters
}

// edged keeps the spaces at the ends of a path from being trimmed: what stands before them, and a slash behind, mean nothing.
func edged(before, text string) string {
	if strings.TrimLeftFunc(text, unicode.IsSpace) != text {
		text = before + text
	}
	if strings.TrimRightFunc(text, unicode.IsSpace) != text {
		text += "/"
	}
	return text
}

// DefaultLifecycle returns the lifecycle of a class that says nothing of it.
func DefaultLifecycle() Lifecycle { return defaultLifecycle }

// parameters returns what differs from the defaults.
func (l Lifecycle) parameters() map[string]string {
	parameters := make(map[string]string)
	switch l.Refresh {
	case defaultLifecycle.Refresh:
	case 0:
		parameters["refresh"] = "off"
	default:
		parameters["refresh"] = l.Refresh.String()
	}
	if l.RenewAt != defaultLifecycle.RenewAt {
		parameters["renewAt"] = strconv.FormatFloat(l.RenewAt, 'g', -1, 64)
	}
	if l.RevokeGrace != defaultLifecycle.RevokeGrace {
		parameters["revokeGrace"] = l.RevokeGrace.String()
	}
	if l.Frozen {
		parameters["rotation"] = "off"
	}
	if l.TokenFile != "" {
		parameters["deliverToken"] = l.TokenFile
	}
	return parameters
}

// objectsText returns the parameter objects, as a person would write it. The mode of a file is always in it, since the
// default is the driver's and not the class's.
func objectsText(objects []Object) string {
	var b strings.Builder
	for _, o := range objects {
		fmt.Fprintf(&b, "- objectName: %s\n", scalar(o.Name))
		set := func(key, value string) {
			if value != "" {
				fmt.Fprintf(&b, "  %s: %s\n", key, scalar(value))
			}
		}
		if o.Source != (Source{}) {
			set("secretPath", sourceText(o.Source.Path))
			if o.Source.Method != "GET" {
				set("method", o.Source.Method)
			}
			if o.Source.Args != "" {
				b.WriteString("  secretArgs:")
				writeValue(&b, "    ", decodeArgs(o.Source.Args))
			}
		}
		set("secretKey", o.Key)
		if o.Encoding != UTF8 {
			set("encoding", encodingNames[o.Encoding])
		}
		if o.Format != FormatJSON {
			set("format", formatNames[o.Format])
		}
		if o.Template.Text != "" {
			fmt.Fprintf(&b, "  template: %s\n", block(o.Template.Text))
		}
		set("leftDelimiter", o.Template.Left)
		set("rightDelimiter", o.Template.Right)
		if o.Template.ErrorOnMissingKey {
			b.WriteString("  errorOnMissingKey: true\n")
		}
		fmt.Fprintf(&b, "  filePermission: 0%03o\n", o.Mode)
	}
	return b.String()
}

// sourceText returns a path of which [SourcePath] makes the given one: it takes a first "v1/" away.
func sourceText(path string) string {
	plain, _, _ := strings.Cut(path, "?")
	if strings.HasPrefix(plain+"/", "v1/") {
		return "v1/" + path
	}
	return path
}

// plainText is what YAML takes for a text without quotes, unless it is the name of a value.
var plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./-]*$`)

// scalar writes a text in one line. What Go writes between quotation marks means the same in YAML, as long as the text is
// UTF-8.
func scalar(text string) string {
	if plainText.MatchString(text) && tagOf(text) == "!!str" {
		return text
	}
	return strconv.Quote(text)
}

// tagOf returns what YAML takes a word without quotes for.
func tagOf(word string) string { return (&yaml.Node{Kind: yaml.ScalarNode, Value: word}).ShortTag() }

// block writes a text as a literal block, as the value of an object's key. A text with blanks at the end of a line, or with
// anything else that is not seen, stands between quotation marks, where it is.
func block(text string) string {
	body := strings.TrimRight(text, "\n")
	newlines := len(text) - len(body)
	hidden := strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !strconv.IsPrint(r) })
	if body == "" || hidden || strings.HasSuffix(body, " ") || strings.Contains(body, " \n") || manyBlocks.MatchString(body) {
		return strconv.Quote(text)
	}
	header := "|"
	if body[0] == ' ' || body[0] == '\n' {
		header += "2" // else the first line would tell how far all are indented
	}
	switch newlines {
	case 0:
		header += "-"
	case 1:
	default:
		header += "+"
	}
	var b strings.Builder
	b.WriteString(header)
	for line := range strings.SplitSeq(body, "\n") {
		b.WriteString("\n")
		if line != "" {
			b.WriteString("    " + line)
		}
	}
	b.WriteString(strings.Repeat("\n", max(0, newlines-1)))
	return b.String()
}

// decodeArgs decodes the arguments of a source. What is no JSON stays a text, for Parse to refuse.
func decodeArgs(text string) any {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var args map[string]any
	if err := decoder.Decode(&args); err != nil {
		return text
	}
	return args
}

// writeValue writes a decoded value of JSON after "key:" or "-". What stands below that is indented.
func writeValue(b *strings.Builder, indent string, value any) {
	switch value := value.(type) {
	case map[string]any:
		if len(value) == 0 {
			b.WriteString(" {}\n")
			return
		}
		b.WriteString("\n")
		for _, key := range slices.Sorted(maps.Keys(value)) {
			writeKey(b, indent, scalar(key))
			writeValue(b, indent+"  ", value[key])
		}
	case []any:
		if len(value) == 0 {
			b.WriteString(" []\n")
			return
		}
		b.WriteString("\n")
		for _, item := range value {
			b.WriteString(indent + "-")
			writeValue(b, indent+"  ", item)
		}
	case string:
		b.WriteString(" " + scalar(value) + "\n")
	case json.Number:
		b.WriteString(" " + number(value.String()) + "\n")
	case bool:
		fmt.Fprintf(b, " %t\n", value)
	case nil:
		b.WriteString(" null\n")
	}
}

// writeKey writes a key with its colon. YAML knows a long key by a question mark only.
func writeKey(b *strings.Builder, indent, key string) {
	const longest = 1000 // the standard allows 1024 characters
	if len(key) > longest {
		b.WriteString(indent + "? " + key + "\n" + indent + ":")
		return
	}
	b.WriteString(indent + key + ":")
}

// number writes a number so that it is read as the same one.
func number(text string) string {
	if text == "-0" {
		return "-0.0" // a whole number has no sign at 0
	}
	if tag := tagOf(text); tag != "!!int" && tag != "!!float" {
		return "!!int " + text // of more digits than a float has
	}
	return text
}
