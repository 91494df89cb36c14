package webhook

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Class is a SecretProviderClass that must be in the namespace of a pod before the pod is admitted. Its name says what is
// in it: equal asks of any number of pods and replicas have one class, and what has another content has another name.
type Class struct {
	Name       string            // fit for a DNS label
	Parameters map[string]string // as package spec reads them
	Provider   string            // whom the driver is to ask
}

// newClass names a class by its content.
func newClass(provider string, parameters map[string]string) Class {
	return Class{Name: className(provider, parameters), Parameters: parameters, Provider: provider}
}

const classPrefix = "vault-"

// base32 in lower case is the shortest text of a hash that is fit for a name: 52 letters and digits.
var classEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// className hashes what the class says. Each part is framed by its length, so that no two classes have the same bytes in a
// row.
func className(provider string, parameters map[string]string) string {
	sum := sha256.New()
	add := func(text string) { // a hash never fails
		_, _ = fmt.Fprintf(sum, "%d:", len(text))
		_, _ = io.WriteString(sum, text)
	}
	add(provider)
	for _, key := range slices.Sorted(maps.Keys(parameters)) {
		add(key)
		add(parameters[key])
	}
	return classPrefix + strings.ToLower(classEncoding.EncodeToString(sum.Sum(nil)))
}

// isClassName tells whether a name is one that className could have given.
func isClassName(name string) bool {
	digits, ok := strings.CutPrefix(name, classPrefix)
	decoded, err := classEncoding.DecodeString(strings.ToUpper(digits))
	return ok && err == nil && len(decoded) == sha256.Size && digits == strings.ToLower(digits)
}
