package render

import (
	"encoding/base64"

	"dario.cat/mergo"
)

// functions returns the functions of consul-template that templates may call, by name. The types of their arguments and
// results are consul-template's, and the order of the arguments: both show in what a template prints. Their errors are faults
// or those of ask. Whoever calls them bounds what goes in and what comes out; those that make much of little, or take long,
// have bounds of their own.
func (m *machine) functions() map[string]any {
	return map[string]any{
		// Vault
		"pkiCert": m.pkiCert,
		"secret":  m.secret,
		"secrets": m.secrets,

		// the pod and the time
		"env":          m.env,
		"envOrDefault": m.envOrDefault,
		"mustEnv":      m.mustEnv,
		"timestamp":    m.timestamp,

		// texts
		"indent":          m.indent,
		"join":            m.join,
		"regexMatch":      regexMatch,
		"regexReplaceAll": m.regexReplaceAll,
		"replaceAll":      m.replaceAll,
		"split":           m.split,
		"splitToMap":      m.splitToMap,
		"toLower":         toLower,
		"toTitle":         toTitle,
		"toUpper":         toUpper,
		"trim":            trim,
		"trimPrefix":      trimPrefix,
		"trimSpace":       trimSpace,
		"trimSuffix":      trimSuffix,

		// formats
		"base64Decode":          decoder("base64Decode", base64.StdEncoding),
		"base64Encode":          m.encoder(base64.StdEncoding),
		"base64URLDecode":       decoder("base64URLDecode", base64.URLEncoding),
		"base64URLEncode":       m.encoder(base64.URLEncoding),
		"hmacSHA256Hex":         hmacSHA256Hex,
		"md5sum":                md5sum,
		"parseBool":             parseBool,
		"parseFloat":            parseFloat,
		"parseInt":              parseInt,
		"parseJSON":             m.parseJSON,
		"parseUint":             parseUint,
		"parseYAML":             m.parseYAML,
		"sha256Hex":             sha256Hex,
		"toJSON":                m.jsonWriter("toJSON", true, false),
		"toJSONPretty":          m.jsonWriter("toJSONPretty", true, true),
		"toTOML":                m.toTOML,
		"toUnescapedJSON":       m.jsonWriter("toUnescapedJSON", false, false),
		"toUnescapedJSONPretty": m.jsonWriter("toUnescapedJSONPretty", false, true),
		"toYAML":                m.toYAML,

		// lists and maps
		"contains":             contains,
		"containsAll":          containsSome(false, false),
		"containsAny":          containsSome(true, true),
		"containsNone":         containsSome(true, false),
		"containsNotAll":       containsSome(false, true),
		"explodeMap":           m.explodeMap,
		"in":                   in,
		"loop":                 m.loop,
		"mergeMap":             m.mergeMap(),
		"mergeMapWithOverride": m.mergeMap(mergo.WithOverride),
		"scratch":              m.scratch,

		// numbers
		"add":      arithmetic("add", sum, sum, sum),
		"divide":   arithmetic("divide", quotient, quotient, quotient),
		"maximum":  choice("maximum", true),
		"minimum":  choice("minimum", false),
		"modulo":   arithmetic("modulo", remainder, remainder, nil),
		"multiply": arithmetic("multiply", product, product, product),
		"subtract": arithmetic("subtract", difference, difference, difference),
	}
}
