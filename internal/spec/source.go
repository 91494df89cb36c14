package spec

import (
	"errors"
	"net/url"
	"path"
	"strings"
)

// SourcePath turns a path as its author writes it, such as /v1/kv//app?version=3, into the one form that a [Source] has,
// so that equal sources compare equal. The error goes on from a text that names the path; it does not repeat it.
func SourcePath(text string) (string, error) {
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
