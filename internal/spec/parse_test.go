package spec

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"leasehold/internal/redact"
)

func TestParse(t *testing.T) {
	got := mustParse(t, validCall())
	creds := Source{Method: "GET", Path: "database/creds/app"}
	want := Mount{
		Class: Class{
			Vault: Vault{
				Address: "https://vault.example:8200", AuthPath: "kubernetes", Role: "db-app", Audience: "vault",
				TLS: TLS{CACert: File{Path: "/operator/ca.pem"}},
			},
			Objects: []Object{
				{Name: "db-user", Source: creds, Key: "username", Encoding: UTF8, Mode: 0o644},
				{Name: "db-password", Source: creds, Key: "password", Encoding: UTF8, Mode: 0o600},
				{
					Name:     "tls/bundle.json",
					Source:   Source{Method: "PUT", Path: "pki/issue/app", Args: `{"common_name":"app.example","ttl":"24h"}`},
					Format:   FormatJSON,
					Encoding: UTF8, Mode: 0o644,
				},
			},
			Lifecycle: Lifecycle{Refresh: 5 * time.Minute, RenewAt: 0.67, RevokeGrace: 10 * time.Minute},
		},
		Pod: Pod{
			Namespace: "shop", Name: "app-0", UID: "1d2c3b4a-0000-4000-8000-5e6f7a8b9c0d", ServiceAccount: "app",
			Token: redact.New(canary + "vault"), TokenExpires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		},
		Volume: "/var/lib/kubelet/pods/x/volumes/kubernetes.io~csi/v/mount",
		Mode:   0o644,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if n := len(got.Class.Sources()); n != 2 {
		t.Errorf("got %d sources, want 2: user name and password share one", n)
	}
}

func TestParseFaults(t *testing.T) {
	set := func(name, value string) func(*call) { return func(c *call) { c.attributes[name] = value } }
	secret := func(name, value string) func(*call) { return func(c *call) { c.secrets[name] = value } }
	without := func(name string) func(*call) { return func(c *call) { delete(c.attributes, name) } }
	object := func(lines ...string) func(*call) { return func(c *call) { c.object(lines...) } }

	for name, row := range map[string]struct {
		mutate func(*call)
		want   string // the one fault, or its beginning if it ends with "..."
	}{
		// The request itself.
		"attributes broken": {
			func(c *call) { c.request.Attributes = `{"a":"` + canary },
			"the attributes of the request are not a JSON object of strings: they must come from the driver",
		},
		"attributes of numbers": {func(c *call) { c.request.Attributes = `{"a":1}` }, "the attributes of the request ..."},
		"secrets broken":        {func(c *call) { c.request.Secrets = canary }, "the secrets of the request ..."},
		"target relative": {
			func(c *call) { c.request.TargetPath = "mount" },
			`the target path "mount" must be an absolute path, clean, and not the root`,
		},
		"target not clean":    {func(c *call) { c.request.TargetPath = "/a/../b" }, `the target path "/a/../b" must be ...`},
		"target is the root":  {func(c *call) { c.request.TargetPath = "/" }, `the target path "/" must be ...`},
		"permission missing":  {func(c *call) { c.request.Permission = "" }, `the default file permission "" must be a number ...`},
		"permission too much": {func(c *call) { c.request.Permission = "512" }, `the default file permission "512" must be ...`},

		// The pod.
		"no pod name": {
			without("csi.storage.k8s.io/pod.name"),
			"attribute csi.storage.k8s.io/pod.name is missing: set podInfoOnMount: true in the CSIDriver object",
		},
		"no namespace":       {without("csi.storage.k8s.io/pod.namespace"), "attribute csi.storage.k8s.io/pod.namespace is missing..."},
		"no uid":             {without("csi.storage.k8s.io/pod.uid"), "attribute csi.storage.k8s.io/pod.uid is missing..."},
		"no service account": {without("csi.storage.k8s.io/serviceAccount.name"), "attribute csi.storage.k8s.io/serviceAccount.name is missing..."},
		"uid is a path":      {set("csi.storage.k8s.io/pod.uid", "../x"), `attribute csi.storage.k8s.io/pod.uid "../x" is not a UID: ...`},
		"uid is ..":          {set("csi.storage.k8s.io/pod.uid", ".."), `attribute csi.storage.k8s.io/pod.uid ".." is not a UID: ...`},

		// The connection.
		"no role": {
			without("roleName"),
			"parameter roleName is missing: name the Vault role that this pod's service account logs in with",
		},
		"role by another case": {
			func(c *call) { delete(c.attributes, "roleName"); c.attributes["rolename"] = "r" },
			`parameter roleName is missing: did you mean it by "rolename", which means nothing?`,
		},
		"role by another name": {
			func(c *call) { delete(c.attributes, "roleName"); c.attributes["role"] = "r" },
			`parameter roleName is missing: did you mean it by "role", ...`,
		},
		"role of spaces":   {set("roleName", "  \n"), "parameter roleName is missing: ..."},
		"role of lines":    {func(c *call) { c.attributes["roleName"], c.operator.Vault.Role = "a\nb", "x" }, `parameter roleName "a\nb" has a control character in it: ...`},
		"role too long":    {func(c *call) { c.attributes["roleName"], c.operator.Vault.Role = strings.Repeat("r", 1025), "x" }, `parameter roleName "` + strings.Repeat("r", 80) + `"... is longer than 1024 bytes: shorten it`},
		"namespace":        {set("vaultNamespace", "a\r\nX-Vault-Token: b"), `parameter vaultNamespace "a\r\nX-Vault-Token: b" has a control ...`},
		"two auth mounts":  {func(c *call) { c.attributes["vaultAuthMountPath"], c.attributes["vaultKubernetesMountPath"] = "a", "b" }, "parameters vaultAuthMountPath and vaultKubernetesMountPath mean the same: ..."},
		"auth mount":       {set("vaultAuthMountPath", "a/../../sys"), `parameter vaultAuthMountPath "a/../../sys" is not the path of an auth method: ...`},
		"auth mount query": {set("vaultKubernetesMountPath", "k8s?x=1"), `parameter vaultKubernetesMountPath "k8s?x=1" is not the path ...`},
		"auth mount empty": {set("vaultAuthMountPath", "//"), `parameter vaultAuthMountPath "//" names no auth method: ...`},
		"no address": {
			func(c *call) { c.operator.Vault.Address = "" },
			"parameter vaultAddress is missing and the operator of the node set no default: name the address of your Vault",
		},
		"address outside the policy": {
			set("vaultAddress", "https://evil.example"),
			`parameter vaultAddress "https://evil.example" is outside the operator's policy: use the operator's own address, or ` +
				`ask the operator of the node to allow this one`,
		},
		"address with a password":         {set("vaultAddress", "https://u:"+canary+"@vault.example"), "parameter vaultAddress (not shown, for it may hold a password) must carry no user name ..."},
		"broken address, with a password": {set("vaultAddress", "https://u:"+canary+"%zz@vault.example"), "parameter vaultAddress (not shown, ..."},
		"skip not allowed":                {set("vaultSkipTLSVerify", "true"), "parameter vaultSkipTLSVerify is not allowed by the operator of the node: ..."},
		"skip no truth value":             {set("vaultSkipTLSVerify", "yes"), `parameter vaultSkipTLSVerify "yes" is not a truth value: write true or false`},

		// TLS material.
		"TLS path outside":      {set("vaultCACertPath", "/etc/shadow"), `parameter vaultCACertPath "/etc/shadow" is not below the operator's TLS directory: name a file below /tls`},
		"TLS path beside":       {set("vaultCACertPath", "/tls-other/ca.pem"), `parameter vaultCACertPath "/tls-other/ca.pem" is not below ...`},
		"TLS path up":           {set("vaultCADirectory", "a/../../etc"), `parameter vaultCADirectory "a/../../etc" has a ".." in it: ...`},
		"TLS path up, harmless": {set("vaultCADirectory", "/tls/a/../b"), `parameter vaultCADirectory "/tls/a/../b" has a ".." in it: ...`},
		"TLS path itself":       {set("vaultCADirectory", "/tls/"), `parameter vaultCADirectory "/tls/" is the operator's TLS directory itself: ...`},
		"TLS paths forbidden": {
			func(c *call) { c.attributes["vaultCACertPath"], c.operator.TLSDirectory = "ca.pem", "" },
			"parameter vaultCACertPath is not allowed by the operator of the node, who offers no TLS files: ...",
		},
		"cert without key":        {set("vaultTLSClientCertPath", "c.pem"), "parameters vaultTLSClientCertPath and vaultTLSClientKeyPath go together: set both or none"},
		"key without cert":        {set("vaultTLSClientKeyPath", "k.pem"), "parameters vaultTLSClientCertPath and vaultTLSClientKeyPath go together: ..."},
		"ca.crt is no PEM":        {secret("ca.crt", canary), "ca.crt of the nodePublishSecretRef has no PEM block of kind CERTIFICATE: ..."},
		"ca.crt is a key":         {secret("ca.crt", keyPEM), "ca.crt of the nodePublishSecretRef has no PEM block of kind CERTIFICATE: ..."},
		"tls.key is no key":       {func(c *call) { c.secrets["tls.crt"], c.secrets["tls.key"] = certPEM, certPEM }, "tls.key of the nodePublishSecretRef has no PEM block of kind PRIVATE KEY: ..."},
		"tls.key without tls.crt": {secret("tls.key", keyPEM), "tls.crt and tls.key of the nodePublishSecretRef go together: put both into the Secret or none"},

		// The lifecycle.
		"refresh without a unit": {set("refresh", "5"), `parameter refresh "5" has no unit: write 5s or 5m, or off to never read again`},
		"refresh a word":         {set("refresh", "often"), `parameter refresh "often" is not a duration: write it like 90s, 5m or 1h30m, or off to never read again`},
		"refresh without end":    {set("refresh", "10ms"), `parameter refresh "10ms" is less than 1s: give Vault more time, ...`},
		"refresh 0":              {set("refresh", "0s"), `parameter refresh "0s" is less than 1s: ...`},
		"refresh negative":       {set("refresh", "-5m"), `parameter refresh "-5m" is less than 1s: ...`},
		"refresh on":             {set("refresh", "on"), `parameter refresh "on" is not a duration: ...`},
		"refresh of lines":       {set("refresh", "5m\n\n5m"), `parameter refresh "5m\n\n5m" has a control character in it: ...`},
		"renewAt too early":      {set("renewAt", "0.29"), `parameter renewAt "0.29" must be a number from 0.3 to 0.9: the fraction of a lease's life at which it is renewed`},
		"renewAt too late":       {set("renewAt", "0.91"), `parameter renewAt "0.91" must be a number from 0.3 to 0.9: ...`},
		"renewAt no number":      {set("renewAt", "NaN"), `parameter renewAt "NaN" must be a number ...`},
		"renewAt in percent":     {set("renewAt", "67%"), `parameter renewAt "67%" must be a number ...`},
		"revokeGrace negative":   {set("revokeGrace", "-1s"), `parameter revokeGrace "-1s" is negative: write 0s to revoke at once`},
		"revokeGrace a number":   {set("revokeGrace", "600"), `parameter revokeGrace "600" has no unit: write 600s or 600m`},
		"revokeGrace off":        {set("revokeGrace", "off"), `parameter revokeGrace "off" is not a duration: write it like 90s, 5m or 1h30m`},
		"rotation":               {set("rotation", "never"), `parameter rotation "never" is neither on nor off: write one of them, in quotes`},
		"deliverToken on":        {set("deliverToken", "true"), `parameter deliverToken "true" names no file: write the name of the file that the token goes into`},
		"deliverToken up":        {set("deliverToken", "../token"), `parameter deliverToken "../token" has a part that begins with "..": rename it`},
		"deliverToken absolute":  {set("deliverToken", "/token"), `parameter deliverToken "/token" is absolute: ...`},
		"deliverToken unclean":   {set("deliverToken", "a//b"), `parameter deliverToken "a//b" is not a clean path: write "a/b"`},
		"deliverToken too long":  {set("deliverToken", "t"+strings.Repeat("/t", 512)), `parameter deliverToken "t/t...`},
		"deliverToken an object": {set("deliverToken", "db-password"), `parameter deliverToken "db-password" is the objectName of objects[1] already: rename one of them`},
		"deliverToken below an object": {
			set("deliverToken", "db-user/token"),
			`parameter deliverToken "db-user/token" needs a directory where objects[0] "db-user" is a file: rename one of them`,
		},
		"deliverToken above an object": {
			set("deliverToken", "tls"),
			`parameter deliverToken "tls" is a file where objects[2] "tls/bundle.json" needs a directory: rename one of them`,
		},

		// The list of objects.
		"no objects": {without("objects"), "parameter objects is missing: list at least one object with objectName and secretPath"},
		"object for objects": {
			func(c *call) { delete(c.attributes, "objects"); c.attributes["object"] = "o" },
			`parameter objects is missing: did you mean it by "object", which means nothing?`,
		},
		"objects empty":     {set("objects", "[]"), "parameter objects lists 0 objects: list 1 to 1000"},
		"objects comment":   {set("objects", "# none"), "parameter objects is not a YAML list: ..."},
		"objects a map":     {set("objects", "objectName: x"), "parameter objects is not a YAML list: begin each object with \"- objectName: ...\""},
		"objects no YAML":   {set("objects", "- a: [\n"), "parameter objects is not valid YAML, line 1: did not find expected node content: mind the indentation ..."},
		"objects twice":     {set("objects", "- {objectName: a, secretPath: b}\n---\n- {objectName: c, secretPath: d}"), "parameter objects has more after its first YAML document: ..."},
		"objects too long":  {set("objects", "# "+strings.Repeat("x", maxObjectsText)), "parameter objects has 131074 bytes, more than 131072: split the class in two"},
		"too many lines":    {set("objects", validObjects+strings.Repeat("\r\n", maxLines)), "parameter objects has 10015 lines, more than 10000: split the class in two"},
		"objects too many":  {set("objects", strings.Repeat("- {objectName: a}\n", 1001)), "parameter objects lists 1001 objects: ..."},
		"too many brackets": {set("objects", "- {objectName: a, secretPath: b, method: PUT, secretArgs: {a: ["+strings.Repeat("[],", maxBrackets-2)+"]}}"), "parameter objects has 20001 opening brackets, more than 20000: ..."},
		"too many sources":  {set("objects", manySources(101)), "parameter objects needs 101 requests to Vault (different secretPath, method or secretArgs), more than 100: split the class in two"},
		"object a text":     {set("objects", "- hello"), `objects[0], line 1: an object must have keys and values: begin it with "objectName: ..."`},
		"object null":       {set("objects", "- "), `objects[0], line 1: an object must have keys ...`},
		"unknown key":       {object("secretKye: a"), `objects[0] "o", line 3: unknown key "secretKye": did you mean secretKey?`},
		"unknown case":      {object("SECRETKEY: a"), `objects[0] "o", line 3: unknown key "SECRETKEY": did you mean secretKey?`},
		"strange key":       {object("whatever: a"), `objects[0] "o", line 3: unknown key "whatever": the keys are objectName, secretPath, ...`},
		"key twice":         {object("secretPath: b"), `objects[0] "o", line 3: key "secretPath" stands in line 2 already: keep one of them`},
		"key a list":        {object("? [a]\n  : b"), `objects[0] "o", line 3: a key must be a text: ...`},
		"value a list":      {object("secretKey: [a]"), `objects[0] "o", line 3: secretKey must be a text: ...`},
		"value too long":    {object("secretKey: " + strings.Repeat("k", 4097)), `objects[0] "o", line 3: secretKey is longer than 4096 bytes: ...`},
		"too many keys":     {set("objects", "- {objectName: a, secretPath: b"+manyKeys(101)+"}"), `objects[0] "a", line 1: an object of 103 keys cannot be meant: ...`},
		"bad merge":         {object("<<: a"), `objects[0] "o", line 3: the value of << must be ...`},
		"endless alias":     {object("secretArgs: &a {a: *a}", "method: PUT"), `objects[0] "o", line 3: the YAML is nested deeper than 64: flatten it`},
		"aliases explode":   {object(explosion, "method: PUT"), `objects[0] "o", line 4: the aliases expand to too much: write fewer of them`},

		// Names.
		"no name":          {set("objects", "- secretPath: b"), "objects[0], line 1: objectName is missing: name the file to write"},
		"name absolute":    {set("objects", "- {objectName: /etc/x, secretPath: b}"), `objects[0] "/etc/x", line 1: objectName "/etc/x" is absolute: ...`},
		"name up":          {set("objects", "- {objectName: a/../../x, secretPath: b}"), `objects[0] "a/../../x", line 1: objectName "a/../../x" has a part that begins with "..": rename it`},
		"name of ..data":   {set("objects", "- {objectName: ..data, secretPath: b}"), `objects[0] "..data", line 1: objectName "..data" has a part that begins with "..": ...`},
		"name not clean":   {set("objects", "- {objectName: a//b, secretPath: b}"), `objects[0] "a//b", line 1: objectName "a//b" is not a clean path: write "a/b"`},
		"name is a dot":    {set("objects", "- {objectName: ., secretPath: b}"), `objects[0] ".", line 1: objectName "." names the volume itself: ...`},
		"name with a NUL":  {set("objects", `- {objectName: "a\0b", secretPath: b}`), `objects[0] "a\x00b", line 1: objectName "a\x00b" has a control character in it: ...`},
		"name with a line": {set("objects", `- {objectName: "a\nb", secretPath: b}`), `objects[0] "a\nb", line 1: objectName "a\nb" has a control ...`},
		"name too long": {
			set("objects", "- {objectName: "+strings.Repeat("n", 256)+", secretPath: b}"),
			`objects[0] "` + strings.Repeat("n", 80) + `"..., line 1: objectName "` + strings.Repeat("n", 80) + `"... has a part of 256 bytes, more than 255: ...`,
		},
		"path too long":   {set("objects", "- {objectName: x"+strings.Repeat("/x", 2048)+", secretPath: b}"), `objects[0] "x/x/x...`},
		"same name":       {set("objects", "- {objectName: a, secretPath: b}\n- {objectName: a, secretPath: c}"), `objects[1] "a" has the same objectName as objects[0]: rename one of them`},
		"name below name": {set("objects", "- {objectName: a/b/c, secretPath: b}\n- {objectName: a/b, secretPath: c}"), `objects[0] "a/b/c" needs a directory where objects[1] "a/b" is a file: rename one of them`},

		// Sources.
		"no path":            {set("objects", "- objectName: a"), `objects[0] "a", line 1: secretPath is missing: name the path in Vault to read`},
		"path null":          {set("objects", "- {objectName: a, secretPath: ~}"), `objects[0] "a", line 1: secretPath is missing: ...`},
		"path of slashes":    {set("objects", "- {objectName: a, secretPath: /v1/}"), `objects[0] "a", line 1: secretPath "/v1/" names no path: ...`},
		"path up":            {set("objects", "- {objectName: a, secretPath: kv/../sys/x}"), `objects[0] "a", line 1: secretPath "kv/../sys/x" has a part "." or "..": ...`},
		"path with a line":   {set("objects", `- {objectName: a, secretPath: "kv/\nx"}`), `objects[0] "a", line 1: secretPath "kv/\nx" has a control ...`},
		"path query":         {set("objects", "- {objectName: a, secretPath: \"kv/x?a=%zz\"}"), `objects[0] "a", line 1: secretPath "kv/x?a=%zz" has a ?query that cannot be read: ...`},
		"method":             {object("method: DELETE"), `objects[0] "o", line 3: unknown method "DELETE": write GET, LIST, PUT or POST`},
		"args need a method": {object("secretArgs: {a: " + canary + "}"), `objects[0] "o", line 3: secretArgs need a method that sends them: add "method: PUT"`},
		"args with LIST":     {object("secretArgs: {a: b}", "method: list"), `objects[0] "o", line 3: method LIST sends no secretArgs: ...`},
		"args a text":        {object("secretArgs: "+canary, "method: PUT"), `objects[0] "o", line 3: secretArgs must be keys and values: ...`},
		"args key twice":     {object("secretArgs: {a: "+canary+", a: c}", "method: PUT"), `objects[0] "o", line 3: key "a" stands in line 3 already: ...`},
		"args not a number":  {object("secretArgs: {a: .inf}", "method: PUT"), `objects[0] "o", line 3: an argument is a number that JSON cannot express: ...`},
		"args tag":           {object("secretArgs: {a: !!binary aGk=}", "method: PUT"), `objects[0] "o", line 3: an argument has the tag "!!binary": ...`},
		"args false bool":    {object("secretArgs: {a: !!bool "+canary+"}", "method: PUT"), `objects[0] "o", line 3: an argument is tagged !!bool and is none: ...`},

		// The rest of an object.
		"encoding":             {object("secretKey: a", "encoding: utf-16"), `objects[0] "o", line 4: unknown encoding "utf-16": write utf-8, base64 or hex`},
		"encoding needs key":   {object("encoding: hex"), `objects[0] "o", line 3: encoding needs a secretKey: ...`},
		"encoding, empty key":  {object("encoding: hex", `secretKey: ""`), `objects[0] "o", line 3: encoding needs a secretKey: ...`},
		"template, key":        {object("template: t", "secretKey: a"), `objects[0] "o", line 4: secretKey does not go with template, which makes the whole file: remove one of them`},
		"template, encoding":   {object("encoding: hex", "template: t"), `objects[0] "o", line 3: encoding does not go with template, ...`},
		"template, format":     {object("template: t", "format: json"), `objects[0] "o", line 4: format does not go with template, ...`},
		"template a list":      {object("template: [t]"), `objects[0] "o", line 3: template must be a text: ...`},
		"template too long":    {object("template: '" + strings.Repeat("t", maxTemplate+1) + "'"), `objects[0] "o", line 3: template is longer than 65536 bytes: shorten it`},
		"template empty":       {set("objects", "- {objectName: a, template: ''}"), `objects[0] "a", line 1: secretPath is missing: ...`},
		"template null":        {set("objects", "- {objectName: a, template: ~}"), `objects[0] "a", line 1: secretPath is missing: ...`},
		"template, method":     {set("objects", "- {objectName: a, template: t, method: PUT}"), `objects[0] "a", line 1: method needs a secretPath: add it, or remove method and let the template ask by itself`},
		"template, args":       {set("objects", "- {objectName: a, template: t, secretArgs: {a: "+canary+"}}"), `objects[0] "a", line 1: secretArgs needs a secretPath: ...`},
		"left alone":           {object("leftDelimiter: '[['"), `objects[0] "o", line 3: leftDelimiter needs a template: add it, or remove leftDelimiter`},
		"right alone":          {object("rightDelimiter: ']]'"), `objects[0] "o", line 3: rightDelimiter needs a template: ...`},
		"missing key alone":    {object("errorOnMissingKey: false"), `objects[0] "o", line 3: errorOnMissingKey needs a template: ...`},
		"left, no template":    {object("leftDelimiter: '[['", "template: ''"), `objects[0] "o", line 3: leftDelimiter needs a template: ...`},
		"left too long":        {object("template: t", "leftDelimiter: "+strings.Repeat("<", 17)), `objects[0] "o", line 4: leftDelimiter is longer than 16 bytes: shorten it`},
		"left with a space":    {object("template: t", "leftDelimiter: < <"), `objects[0] "o", line 4: leftDelimiter "< <" has a space or a control character in it: write it without`},
		"right with a newline": {object("template: t", `rightDelimiter: ">\n"`), `objects[0] "o", line 4: rightDelimiter ">\n" has a space ...`},
		"right, invisible":     {object("template: t", `rightDelimiter: "\u2003>"`), `objects[0] "o", line 4: rightDelimiter "\u2003>" has a space ...`},
		"delimiters equal":     {object("template: t", "leftDelimiter: '%%'", "rightDelimiter: '%%'"), `objects[0] "o", line 3: the delimiters of the template are both "%%": let them differ`},
		"left is right's":      {object("template: t", "leftDelimiter: '}}'"), `objects[0] "o", line 3: the delimiters of the template are both "}}": let them differ`},
		"missing key":          {object("template: t", "errorOnMissingKey: yes"), `objects[0] "o", line 4: errorOnMissingKey "yes" is not a truth value: write true or false`},
		"format":               {object("format: yaml"), `objects[0] "o", line 3: unknown format "yaml": write json, map, data, env or properties`},
		"format, key":          {object("secretKey: a", "format: map"), `objects[0] "o", line 3: secretKey does not go with format, which is about the whole answer: remove one of them`},
		"format a list":        {object("format: [env]"), `objects[0] "o", line 3: format must be a text: ...`},
		"template refused": {
			func(c *call) {
				c.object("template:", `  "{{ file }}"`)
				c.operator.CheckTemplate = func(t Template) error { return fmt.Errorf("template line 1: %s is not available: remove it", t.Text) }
			},
			`objects[0] "o", line 3: template line 1: {{ file }} is not available: remove it`,
		},
		"permission decimal":   {object("filePermission: 644"), `objects[0] "o", line 3: filePermission "644" is the decimal number; write 0644`},
		"permission in a list": {object("filePermission: [0644]"), `objects[0] "o", line 3: filePermission must be a text: ...`},
	} {
		t.Run(name, func(t *testing.T) {
			c := validCall()
			row.mutate(c)
			m, err := c.Parse()
			if strings.Contains(errorText(err), canary) {
				t.Errorf("the fault shows a secret: %v", err)
			}
			var faults Faults
			if !errors.As(err, &faults) || len(faults) != 1 {
				t.Fatalf("got error %v, want one fault: %s", err, row.want)
			}
			if begin, ok := strings.CutSuffix(row.want, "..."); (ok && !strings.HasPrefix(faults[0], begin)) || (!ok && faults[0] != row.want) {
				t.Errorf("got  %s\nwant %s", faults[0], row.want)
			}
			if !reflect.DeepEqual(m.Class, Class{}) || !m.Pod.Token.IsZero() {
				t.Errorf("got %+v beside the fault, want no class and no token", m)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(", k" + strings.Repeat("x", i) + ": v")
	}
	return b.String()
}

// manySources are objects of n sources, two of each.
func manySources(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- {objectName: a%d, secretPath: kv/%[1]d}\n- {objectName: b%[1]d, secretPath: kv/%[1]d}\n", i)
	}
	return b.String()
}

// explosion is an argument of 10^7 elements in few bytes.
const explosion = `secretArgs:
    a: &a [x, x, x, x, x, x, x, x, x, x]
    b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]
    c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]
    d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]
    e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]
    f: [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e,
      *e, *e, *e, *e, *e, *e, *e, *e, *e, *e]`

func TestParseListsAllFaults(t *testing.T) {
	c := validCall()
	delete(c.attributes, "roleName")
	c.attributes["vaultAddress"] = "ftp://vault.example"
	c.attributes["renewAt"], c.attributes["rotation"] = "1", "maybe"
	c.attributes["objects"] = "- {objectName: a, secretPaht: b}\n- {objectName: ../b, secretPath: c}"
	want := Faults{
		`parameter vaultAddress "ftp://vault.example" must begin with https:// or http://`,
		"parameter roleName is missing: name the Vault role that this pod's service account logs in with",
		`objects[0] "a", line 1: unknown key "secretPaht": did you mean secretPath?`,
		`objects[0] "a", line 1: secretPath is missing: name the path in Vault to read`,
		`objects[1] "../b", line 2: objectName "../b" has a part that begins with "..": rename it`,
		`parameter renewAt "1" must be a number from 0.3 to 0.9: the fraction of a lease's life at which it is renewed`,
		`parameter rotation "maybe" is neither on nor off: write one of them, in quotes`,
	}
	for range 20 { // the order must not depend on a map's
		_, err := c.Parse()
		var got Faults
		if !errors.As(err, &got) || !slices.Equal(got, want) {
			t.Fatalf("got  %q\nwant %q", err, want)
		}
		for _, fault := range want {
			if !strings.Contains(err.Error(), fault) {
				t.Errorf("Error() = %q lacks %q", err, fault)
			}
		}
	}
}

func TestParseBoundsFaults(t *testing.T) {
	c := validCall()
	c.attributes["objects"] = strings.Repeat("- {a: 1, b: 2}\n", 1000)
	_, err := c.Parse()
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != maxFaults+1 {
		t.Fatalf("got %d faults, want %d", len(faults), maxFaults+1)
	}
	if want := "there may be more faults: mend these first"; faults[maxFaults] != want {
		t.Errorf("the last fault is %q, want %q", faults[maxFaults], want)
	}
}

func TestParseIgnored(t *testing.T) {
	c := validCall()
	c.attributes["vaultKubernetesServiceAccountPath"] = "x"
	c.attributes["RoleName"] = "x"
	want := []string{"RoleName", "vaultKubernetesServiceAccountPath"}
	if got := mustParse(t, c).Ignored; !slices.Equal(got, want) {
		t.Errorf("Ignored = %q, want %q", got, want)
	}
}

// What is missing is often what is misspelt: an author of faults must hear of what was ignored, and whose pod it is.
func TestFaultsKeepWhatWasIgnored(t *testing.T) {
	c := validCall()
	want := mustParse(t, c)
	want.Class, want.Mode, want.Ignored = Class{}, 0, []string{"rolenam", "x"}
	want.Pod.Token, want.Pod.TokenExpires = redact.String{}, time.Time{}
	delete(c.attributes, "roleName")
	c.attributes["x"], c.attributes["rolenam"] = "y", "z"
	got, err := c.Parse()
	if err == nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v %v\nwant %+v", got, err, want)
	}
}

// At the limits a class is still good.
func TestParseAtTheLimits(t *testing.T) {
	for name, text := range map[string]string{
		"sources":  manySources(maxSources),
		"brackets": "- {objectName: a, secretPath: b, method: PUT, secretArgs: {a: [" + strings.Repeat("[],", maxBrackets-3) + "]}}",
		"template": "- objectName: a\n  template: |\n" + strings.Repeat("      {{ x }}\n", maxTemplate/8),
		"objects":  strings.Repeat(" ", 4096) + "\n" + manyObjects(maxObjects),
	} {
		c := validCall()
		c.attributes["objects"] = text
		if _, err := c.Parse(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func manyObjects(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- {objectName: 'a{%d}', secretPath: kv/a, secretKey: k}\n", i)
	}
	return b.String()
}

// FuzzParse sets two attributes of a valid call, or all of them as one raw text. Kubelet's attributes are set last, as
// the driver does it. A secret stands in all places where one may: no error may repeat it.
func FuzzParse(f *testing.F) {
	const none = ""
	f.Add(none, "roleName", "a", "objects", validObjects)
	f.Add(none, "vaultAddress", "https://VAULT.example:8200/x/", "vaultNamespace", "/a/b/")
	f.Add(none, "vaultAddress", "https://u:p@h", "refresh", "5m")
	f.Add(none, "renewAt", "0.5", "revokeGrace", "1h30m")
	f.Add(none, "rotation", "off", "deliverToken", "tls/token")
	f.Add(none, "vaultCACertPath", "/tls/ca.pem", "vaultCADirectory", "a/../b")
	f.Add(none, "vaultTLSClientCertPath", "c.pem", "vaultTLSClientKeyPath", "/tls/k.pem")
	f.Add(none, "vaultAuthMountPath", "auth/k8s/", "vaultKubernetesMountPath", "")
	f.Add(none, "vaultSkipTLSVerify", "1", "vaultTLSServerName", "v.example")
	f.Add(none, "audience", "x", "unknown", "y")
	f.Add(none, "csi.storage.k8s.io/pod.uid", "../..", tokensKey, "{}")
	f.Add(encode(validCall().attributes), "", "", "", "")
	f.Add(`{"a":1}`, "", "", "", "")
	f.Fuzz(func(t *testing.T, raw, name1, value1, name2, value2 string) {
		c := validCall()
		kubelet := validCall().attributes
		c.attributes[name1], c.attributes[name2] = value1, value2
		for name := range c.attributes {
			if strings.HasPrefix(name, "csi.storage.k8s.io/") {
				c.attributes[name] = kubelet[name]
			}
		}
		c.secrets = map[string]string{"ca.crt": certPEM + canary, "tls.crt": certPEM, "tls.key": canary + value1}
		if len(value2)%2 == 0 {
			c.secrets["tls.key"] = keyPEM
		}
		if raw != "" {
			c.request.Attributes = raw + canary
		}
		m, err := c.Parse()
		again, errAgain := c.Parse()
		if !reflect.DeepEqual(m, again) || errorText(err) != errorText(errAgain) {
			t.Errorf("parsed twice, got\n%+v %v\n%+v %v", m, err, again, errAgain)
		}
		if err != nil {
			if strings.Contains(err.Error(), canary) || hasControl(err.Error()) {
				t.Errorf("the error shows a secret or a control character: %q", err)
			}
			if !reflect.DeepEqual(m.Class, Class{}) || !m.Pod.Token.IsZero() {
				t.Errorf("got %+v beside the error %v", m, err)
			}
			return
		}
		checkInvariants(t, m)
		checkParameters(t, c, m.Class)
		if got, want := m.Pod.Token.Reveal(), canary+"vault"; got != want {
			t.Errorf("token %q, want kubelet's, %q", got, want)
		}
		if m.Pod.UID != kubelet["csi.storage.k8s.io/pod.uid"] {
			t.Errorf("UID %q is not kubelet's", m.Pod.UID)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	c := validCall()
	r := c.Request()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.operator.Parse(r); err != nil {
			b.Fatal(err)
		}
	}
}
