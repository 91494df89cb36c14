package render

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"leasehold/internal/spec"
)

// hostile are templates that want more than there is, by what they want. Each must end soon, in bounded memory, with an error
// that has one of the texts in it; an empty text is no error. One that computes for too long may always say so, for the
// machine may be slow.
func hostile() map[string]struct {
	text string
	want []string
} {
	type row = struct {
		text string
		want []string
	}
	const (
		steps  = string(faultSteps)
		file   = "the file would have more than 1 MiB"
		built  = string(faultBuilt)
		large  = "are too large here"
		printf = "printf: the text could have more than 4 MiB"
		nested = "a value is nested deeper than 1000"
		itself = "must not call itself"
	)
	big := `{{ $b := sprig_repeat 1000000 "x" }}`
	rows := map[string]row{
		"endless range":             {`{{ range 9223372036854775807 }}{{ end }}`, []string{steps}},
		"endless range of text":     {`{{ range 9223372036854775807 }}abc{{ end }}`, []string{file}},
		"endless range of nothing":  {`{{ range 9223372036854775807 }}{{ if . }}{{ continue }}{{ end }}{{ end }}`, []string{steps}},
		"endless loop":              {`{{ range loop 9223372036854775807 }}{{ end }}`, []string{steps}},
		"endless loop, left":        {`{{ range 100000 }}{{ range loop 9223372036854775807 }}{{ break }}{{ end }}{{ end }}`, []string{""}},
		"loops left while full":     {`{{ range 100000 }}{{ range loop 1024 }}{{ break }}{{ end }}{{ end }}`, []string{built}},
		"range in range":            {strings.Repeat(`{{ range 1000 }}`, 50) + strings.Repeat(`{{ end }}`, 50), []string{steps}},
		"range over until":          {`{{ range sprig_until 100000000 }}{{ end }}`, []string{"sprig_until"}},
		"range over a list, nested": {`{{ $l := sprig_until 90000 }}{{ range $l }}{{ range $l }}{{ end }}{{ end }}`, []string{steps}},
		"else of endless loops":     {`{{ range 9223372036854775807 }}{{ range 0 }}{{ else }}{{ end }}{{ end }}`, []string{steps}},

		"define that calls itself":   {`{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}`, []string{itself}},
		"define in a circle":         {`{{ define "a" }}{{ template "b" }}{{ end }}{{ define "b" }}{{ template "a" }}{{ end }}{{ template "b" }}`, []string{itself}},
		"block that calls itself":    {`{{ block "a" . }}{{ if 1 }}{{ template "a" . }}{{ end }}{{ end }}`, []string{itself}},
		"exponential calls":          {calls(60, 2, ``), []string{steps}},
		"exponential calls of texts": {calls(60, 2, `x`), []string{steps, file}},
		"exponential calls, printed": {calls(30, 8, `{{ "x" }}`), []string{steps, file}},
		"a thousand defines":         {calls(1000, 1, `x`), []string{""}},

		"nested with":         {strings.Repeat(`{{with 1}}`, 3000) + strings.Repeat(`{{end}}`, 3000), []string{"nested deeper than 100"}},
		"nested range else":   {strings.Repeat(`{{range 0}}{{else}}`, 2000) + strings.Repeat(`{{end}}`, 2000), []string{"nested deeper than 100"}},
		"nested blocks":       {nestedBlocks(1500), []string{"", "too long", "more than"}},
		"long else if":        {`{{if 0}}` + strings.Repeat(`{{else if 0}}`, 4000) + `{{end}}`, []string{""}},
		"long else with":      {`{{range 1000}}{{with 0}}` + strings.Repeat(`{{else with 0}}`, 3000) + `{{else}}{{continue}}{{end}}{{end}}`, []string{""}},
		"nested parentheses":  {`{{` + strings.Repeat(`(`, 9000) + `1` + strings.Repeat(`)`, 9000) + `}}`, []string{"nested deeper than 100"}},
		"parentheses, open":   {`{{` + strings.Repeat(`(`, 60000), []string{"max expression depth exceeded"}},
		"long chain":          {`{{ .` + strings.Repeat(`a.`, 20000) + `a }}`, []string{"", "nil"}},
		"long pipe":           {`{{ 1` + strings.Repeat(`|print`, 5000) + ` }}`, []string{""}},
		"many variables":      {manyVariables(3000), []string{"", "more than 32768"}},
		"many actions":        {strings.Repeat(`{{1}}`, 13000), []string{"more than 32768"}},
		"many arguments":      {`{{ print` + strings.Repeat(` 1`, 30000) + ` }}`, []string{""}},
		"one long comment":    {`{{/*` + strings.Repeat(`*`, 60000) + `*/}}`, []string{""}},
		"many comments":       {strings.Repeat(`{{/**/}}`, 8000), []string{""}},
		"blank space":         {strings.Repeat(`{{- "" -}}`+strings.Repeat("\n", 100), 500), []string{""}},
		"delimiters only":     {strings.Repeat(`{{`, 30000), []string{"unexpected"}},
		"long name":           {`{{ ` + strings.Repeat(`f`, 60000) + ` }}`, []string{"is not known"}},
		"long number":         {`{{ ` + strings.Repeat(`9`, 60000) + ` }}`, []string{"illegal number"}},
		"long float":          {`{{ 1.` + strings.Repeat(`9`, 60000) + `e-9 }}`, []string{""}},
		"large exponent":      {`{{ 1e999999999 }}`, []string{"illegal number"}},
		"not UTF-8":           {strings.Repeat("\xff{{ \"\\xff\\xfe\" | printf \"%q\" | html | js }}\xc3\x28", 500), []string{""}},
		"not UTF-8, inside":   {"{{ \xff }}", []string{"unrecognized character"}},
		"not UTF-8, name":     {"{{ a\xff }}", []string{"bad character"}},
		"bytes of all values": {allBytes(), []string{"unrecognized character"}},

		"doubling by print":       {doubling(`print $s $s`), []string{large, built}},
		"doubling by println":     {doubling(`println $s $s`), []string{large, built}},
		"doubling by printf":      {doubling(`printf "%s%s" $s $s`), []string{large, built, printf}},
		"doubling by an index":    {doubling(`printf "%[1]s%[1]s" $s`), []string{large, built, printf}},
		"doubling by html":        {doubling(`html "&" $s`), []string{large, built}},
		"doubling by js":          {doubling(`js "'" $s $s`), []string{large, built}},
		"doubling by urlquery":    {doubling(`urlquery $s "%"`), []string{large, built}},
		"doubling by join":        {doubling(`join $s (split "," "a,b,c")`), []string{large, built}},
		"doubling by replaceAll":  {doubling(`replaceAll "x" "xx" $s`), []string{large, built}},
		"doubling by toJSON":      {doubling(`toJSON (print "\"" $s)`), []string{large, built}},
		"doubling by base64":      {doubling(`base64Encode $s`), []string{large, built}},
		"doubling by regex":       {doubling(`regexReplaceAll "." "$0$0" $s`), []string{large, built, "takes too long"}},
		"doubling by indent":      {doubling(`indent 1000 (print $s "\nx")`), []string{large, built}},
		"doubling by cat":         {doubling(`sprig_cat $s $s`), []string{large, built, "more than"}},
		"doubling by repeat":      {doubling(`sprig_repeat 2 $s`), []string{"sprig_repeat"}},
		"doubling by quote":       {doubling(`sprig_quote $s $s`), []string{large, built, "more than"}},
		"doubling by Format":      {`{{ $t := sprig_toDate "2006-01-02" "2020-11-11" }}{{ $s := "1" }}{{ range 99 }}{{ $s = $t.Format $s }}{{ end }}{{ len $s }}`, []string{large, built}},
		"much of JSON":            {big + `{{ $b = replaceAll "x" "<<" $b | replaceAll "<" "<<<<<<<<" }}{{ range 9 }}{{ $x := toJSON $b }}{{ end }}`, []string{large}},
		"much of JSON, in a list": {big + `{{ $l := sprig_list $b $b $b $b $b $b $b $b $b $b $b $b $b $b }}{{ range 9 }}{{ $x := toUnescapedJSONPretty $l }}{{ end }}`, []string{large}},
		"just enough of JSON":     {`{{ $b := sprig_repeat 1000000 "<" | replaceAll "<" "<<" }}{{ range 9 }}{{ $x := toJSON $b }}{{ end }}`, []string{built}},
		"doubling in a pipe":      {`{{ $t := sprig_toDate "2006-01-02" "2020-11-11" }}{{ $s := "1" }}{{ range 99 }}{{ $s = $s | $t.Format }}{{ end }}{{ len $s }}`, []string{large, built}},
		"doubling and keeping":    {`{{ $s := "x" }}{{ range $i := 99 }}{{ $s = print $s $s }}{{ scratch.Set (print $i) $s }}{{ end }}`, []string{large, built}},
		"many large texts":        {manyLarge(800), []string{built}},
		"few texts, often":        {big + `{{ range 100000 }}{{ $x := sha256Hex $b }}{{ end }}`, []string{string(faultTouched)}},

		"lists of lists":         {laughs(`sprig_list $l $l`), []string{large, built}},
		"lists of ten":           {laughs(`sprig_list $l $l $l $l $l $l $l $l $l $l`), []string{large, built}},
		"tuples of tuples":       {laughs(`sprig_tuple $l $l`), []string{large, built}},
		"dicts of dicts":         {laughs(`sprig_dict "a" $l "b" $l`), []string{large, built}},
		"sets of sets":           {laughs(`sprig_set (sprig_set (sprig_dict) "a" $l) "b" $l`), []string{large, built}},
		"appended lists":         {laughs(`sprig_append (sprig_list $l) $l`), []string{large, built}},
		"concatenated lists":     {laughs(`sprig_concat (sprig_list $l) (sprig_list $l)`), []string{large, built}},
		"merged dicts":           {laughs(`mergeMap (sprig_dict "a" $l) (sprig_dict "b" $l)`), []string{large, built}},
		"lists in scratch":       {`{{ scratch.Set "l" 1 }}{{ range 99 }}{{ scratch.Set "l" (sprig_list (scratch.Get "l") (scratch.Get "l")) }}{{ end }}`, []string{large, built}},
		"maps in scratch":        {`{{ range 99 }}{{ scratch.MapSet "m" "a" (scratch.Get "m") }}{{ scratch.MapSet "m" "b" (scratch.Get "m") }}{{ end }}`, []string{large, built}},
		"a list, ever deeper":    {`{{ $l := 1 }}{{ range 100000 }}{{ $l = sprig_list $l }}{{ end }}`, []string{nested, built}},
		"a dict, ever deeper":    {`{{ $l := 1 }}{{ range 100000 }}{{ $l = sprig_dict "a" $l }}{{ end }}`, []string{nested, built}},
		"deep JSON":              {`{{ sprig_repeat 100000 "[" | parseJSON }}`, []string{"parseJSON"}},
		"deep JSON, closed":      {`{{ print (sprig_repeat 9000 "[") (sprig_repeat 9000 "]") | parseJSON }}`, []string{nested}},
		"deep YAML":              {`{{ sprig_repeat 100000 "[" | parseYAML }}`, []string{"parseYAML"}},
		"YAML that laughs":       {laughingYAML(), []string{"parseYAML"}},
		"a dict in itself":       {`{{ $d := sprig_dict }}{{ $_ := sprig_set $d "d" $d }}{{ $d }}`, []string{"sprig_set", ""}},
		"dicts in one another":   {`{{ $d := sprig_dict }}{{ $e := sprig_dict "d" $d }}{{ $_ := sprig_set $d "e" $e }}{{ toJSON $d }}`, []string{"sprig_set", ""}},
		"a dict in a list in it": {`{{ $d := sprig_dict }}{{ $_ := sprig_set $d "d" (sprig_list $d) }}{{ printf "%v" $d }}`, []string{"sprig_set", ""}},
		"scratch in scratch":     {`{{ scratch.Set "s" scratch }}{{ scratch.Get "s" }}`, []string{"scratch"}},
		"a map of scratch in it": {`{{ scratch.MapSet "m" "a" 1 }}{{ scratch.MapSet "m" "m" (scratch.Get "m") }}{{ scratch.Get "m" }}`, []string{""}},
		"merged with itself":     {`{{ $d := sprig_dict "a" 1 }}{{ $_ := sprig_merge $d (sprig_dict "d" $d) }}{{ $d }}`, []string{"sprig_merge", ""}},

		"width":                    {`{{ printf "%1000000d%1000000d%1000000d%1000000d%1000000d" 1 1 1 1 1 }}`, []string{printf}},
		"width beyond":             {`{{ printf "%9999999d" 1 }}`, []string{printf}},
		"width by a star":          {`{{ printf "%*d%*d%*d%*d%*d" 1000000 1 1000000 1 1000000 1 1000000 1 1000000 1 }}`, []string{printf}},
		"width by an index":        {`{{ printf "%[1]*[1]d%[1]*[1]d%[1]*[1]d%[1]*[1]d%[1]*[1]d" 1000000 }}`, []string{printf}},
		"precision":                {`{{ printf "%.1000000f%.1000000f%.1000000f" 1.5 1.5 1.5 }}`, []string{printf}},
		"precision by a star":      {`{{ printf "%.*d%.*d%.*d" 1000000 1 1000000 1 1000000 1 }}`, []string{printf}},
		"precision, its index":     {`{{ printf "` + strings.Repeat("%.[1]999999d", 1000) + `" 1 }}`, []string{printf}},
		"what a store is made of":  {big + `{{ $_ := scratch.Set "b" $b }}{{ printf "` + strings.Repeat("%[1]w", 900) + `" scratch }}`, []string{"%w is for errors"}},
		"width of a time's parts":  {`{{ printf "%4000000d" (sprig_toDate "2006-01-02" "2020-11-11") }}`, []string{printf}},
		"address of a time's zone": {`{{ printf "%d" (sprig_list (sprig_toDate "2006-01-02 -0700" "2020-11-11 +0130")) }}`, []string{"%d prints what the value is made of"}},
		"address in a zone":        {`{{ printf "%t" (sprig_toDate "2006-01-02 -0700" "2020-11-11 +0130").Location }}`, []string{"%t prints what the value is made of"}},
		"a time as a text":         {`{{ printf "%10.4s %q %x %#v %T" (sprig_toDate "2006-01-02" "2020-11-11") 1 2 3 4 }}`, []string{""}},
		"width of each byte":       {`{{ printf "%900000d" (sprig_toDate "2006-01-02" "2020-11-11").MarshalText }}`, []string{printf}},
		"width of each":            {`{{ printf "%100000d" (sprig_until 1000) }}`, []string{printf}},
		"width in a loop":          {`{{ range 9999 }}{{ $x := printf "%900000d" 1 }}{{ end }}`, []string{built}},
		"one text, many verbs":     {big + `{{ printf (sprig_repeat 1000 "%[1]s") $b }}`, []string{printf}},
		"quoted text":              {`{{ $b := sprig_repeat 900000 "é" }}{{ printf "%+q" $b }}`, []string{printf, "more than"}},
		"Go syntax":                {`{{ printf "%#v%#v" (sprig_until 30000) 1 }}`, []string{printf}},
		"open brackets":            {`{{ printf (sprig_repeat 300000 "%[") 1 }}`, []string{"printf: a format has more than 16 KiB"}},
		"open brackets, fewer":     {`{{ $f := sprig_repeat 8000 "%[" }}{{ range 100000 }}{{ $x := printf $f 1 }}{{ end }}`, []string{built}},
		"closed brackets":          {`{{ $f := sprig_repeat 5000 "%[9" }}{{ range 100 }}{{ $x := printf $f 1 }}{{ end }}`, []string{""}},

		"sprig_repeat":       {`{{ sprig_repeat 9223372036854775807 "x" }}`, []string{"sprig_repeat"}},
		"sprig_repeat twice": {`{{ sprig_repeat 1000000 "x" | sprig_repeat 1000000 }}`, []string{"sprig_repeat"}},
		"sprig_repeat often": {`{{ range 1000 }}{{ $x := sprig_repeat 1000000 "x" }}{{ end }}`, []string{built}},
		"sprig_indent":       {`{{ sprig_indent 9223372036854775807 "x" }}`, []string{"sprig_indent"}},
		"sprig_nindent":      {big + `{{ sprig_nindent 1000000 (replaceAll "x" "\n" $b) }}`, []string{"sprig_nindent"}},
		"sprig_untilStep":    {`{{ sprig_untilStep 0 9223372036854775807 1 }}`, []string{"sprig_untilStep"}},
		"sprig_seq":          {`{{ sprig_seq 0 1 9223372036854775807 }}`, []string{"sprig_seq", ""}},
		"sprig_wrap":         {big + `{{ sprig_wrapWith 1 $b $b }}`, []string{"sprig_wrapWith"}},
		"sprig_splitList":    {big + `{{ range sprig_splitList "" $b }}{{ end }}`, []string{"sprig_splitList"}},
		"sprig_split":        {big + `{{ sprig_split "" $b | len }}`, []string{"sprig_split"}},
		"sprig_chunk":        {`{{ sprig_chunk 1 (sprig_until 90000) | len }}`, []string{""}},
		"sprig_uniq":         {`{{ sprig_uniq (sprig_until 90000) | len }}`, []string{"sprig_uniq"}},
		"sprig_without":      {`{{ range 10000 }}{{ $x := sprig_until 10000 }}{{ end }}`, []string{built}},
		"sprig_regex":        {big + `{{ sprig_regexReplaceAll "(x*)*y" $b "$1$1$1$1" }}`, []string{"sprig_regexReplaceAll", ""}},
		"sprig_regexFindAll": {big + `{{ sprig_regexFindAll "x" $b -1 | len }}`, []string{"sprig_regexFindAll"}},
		"sprig_abbrev":       {`{{ sprig_abbrev 9223372036854775807 "x" }}`, []string{"", "sprig_abbrev"}},
		"sprig_trunc":        {`{{ sprig_trunc -9223372036854775807 "x" }}`, []string{"", "sprig_trunc"}},
		"sprig_plural":       {`{{ sprig_plural "a" "b" 9223372036854775807 }}`, []string{""}},
		"sprig_toDecimal":    {big + `{{ sprig_toDecimal $b }}`, []string{"", "sprig_toDecimal"}},
		"sprig_addf":         {`{{ sprig_addf 1e300 1e-300 }}`, []string{"", "sprig_addf"}},
		"a version, changed": {big + `{{ $v := (sprig_semver "1.2.3").SetMetadata $b }}{{ range 10000 }}{{ scratch.Set (print .) $v.String }}{{ end }}`, []string{"not available"}},
		"a version, read":    {big + `{{ $v := sprig_semver "1.2.3" }}` + strings.Repeat(`{{ if $v.Scan $b }}{{ end }}`, 1000), []string{"not available"}},
		"sprig_semver":       {big + `{{ sprig_semverCompare $b "1.2.3" }}`, []string{"sprig_semverCompare"}},
		"regexMatch":         {big + `{{ regexMatch "(x*)*(x*)*(x*)*y" $b }}`, []string{"regexMatch", ""}},
		"regex repetitions":  {`{{ regexMatch "((((a{9}){9}){9}){9}){9}" "a" }}`, []string{"regexMatch"}},
		"split into bytes":   {big + `{{ range 100 }}{{ $x := split "" $b }}{{ end }}`, []string{large, built}},
		"indent":             {`{{ indent 9223372036854775807 "x" }}`, []string{"indent"}},
		"indent of lines":    {big + `{{ indent 1000000 (replaceAll "x" "x\n" $b) }}`, []string{built, "indent"}},
		"explodeMap":         {`{{ $d := sprig_dict }}{{ $_ := sprig_set $d (sprig_repeat 900000 "a/") 1 }}{{ explodeMap $d }}`, []string{"explodeMap", "sprig_repeat"}},
		"containsAny":        {`{{ $l := sprig_until 90000 }}{{ containsAny $l $l }}`, []string{"containsAny", "wrong type"}},
		"sorting":            {`{{ $l := sprig_until 90000 }}{{ range 9999 }}{{ $x := sprig_sortAlpha $l }}{{ end }}`, []string{built}},
		"timestamp":          {big + `{{ range 9999 }}{{ $x := timestamp $b }}{{ end }}`, []string{built}},

		"comparing long texts":    {big + `{{ $c := print $b "" }}{{ range 1000000 }}{{ if eq $b $c $c $c $c $c $c $c $c }}{{ end }}{{ end }}`, []string{string(faultTouched)}},
		"one long comparison":     {big + `{{ $c := print $b "" }}{{ if eq $b` + strings.Repeat(` $c`, 15000) + ` }}{{ end }}`, []string{string(faultTouched), "more than 32768"}},
		"looking up long texts":   {big + `{{ $d := sprig_dict $b 1 }}{{ range 1000000 }}{{ if index $d $b }}{{ end }}{{ end }}`, []string{string(faultTouched)}},
		"comparing in a pipe":     {big + `{{ $c := print $b "" }}{{ range 1000000 }}{{ if $b | eq $c }}{{ end }}{{ end }}`, []string{string(faultTouched)}},
		"many sources":            {`{{ range 1000 }}{{ $x := secret (printf "kv/%d" .) }}{{ end }}`, []string{"more than 100 requests"}},
		"one source, often":       {`{{ range 1000000 }}{{ $x := secret "huge" }}{{ end }}`, []string{built, large}},
		"huge map, printed":       {`{{ (secret "huge").Data }}`, []string{large, file}},
		"huge map, range":         {`{{ range $k, $v := (secret "huge").Data }}{{ $k }}{{ $k }}{{ if $v }}{{ end }}{{ end }}`, []string{file}},
		"huge map, sorted often":  {`{{ $m := (secret "huge").Data }}` + strings.Repeat(`{{ range $m }}{{ break }}{{ end }}`, 1500), []string{built}},
		"huge map, in itself":     {`{{ $m := (secret "huge").Data }}` + strings.Repeat(`{{ range $m }}`, 90) + strings.Repeat(`{{ end }}`, 90), []string{built}},
		"huge map, by functions":  {`{{ $m := (secret "huge").Data }}{{ range 100000 }}{{ $x := sprig_keys $m }}{{ end }}`, []string{large, built}},
		"huge map, JSON":          {`{{ range 100000 }}{{ $x := toJSON (secret "huge").Data }}{{ end }}`, []string{built}},
		"huge map, YAML":          {`{{ range 100000 }}{{ $x := toYAML (secret "huge").Data }}{{ end }}`, []string{built}},
		"huge map, TOML":          {`{{ range 100000 }}{{ $x := toTOML (secret "huge").Data }}{{ end }}`, []string{built, "toTOML"}},
		"huge list of texts":      {`{{ $l := (secret "list").Data.l }}{{ range 10000 }}{{ $x := join "," $l }}{{ end }}`, []string{"wrong type", built}},
		"fails halfway":           {`{{ range 1000 }}some text {{ if eq . 999 }}{{ .x.y }}{{ end }}{{ end }}`, []string{"can't evaluate field x in type int"}},
		"fails in the middle":     {strings.Repeat("x", 30000) + `{{ index "abc" 10 }}` + strings.Repeat("y", 30000), []string{"index out of range"}},
		"more and more variables": {`{{ range 1000000 }}{{ $a := . }}{{ $b := $a }}{{ $c := $b }}{{ end }}`, []string{""}},
	}
	return rows
}

// calls are defines that call one another a few times each: the innermost one executes a text.
func calls(depth, times int, text string) string {
	var b strings.Builder
	for i := range depth {
		fmt.Fprintf(&b, `{{define "%d"}}%s{{end}}`, i, strings.Repeat(fmt.Sprintf(`{{template "%d"}}`, i+1), times))
	}
	fmt.Fprintf(&b, `{{define "%d"}}%s{{end}}{{template "0"}}`, depth, text)
	return b.String()
}

func nestedBlocks(depth int) string {
	var b strings.Builder
	for i := range depth {
		fmt.Fprintf(&b, `{{block "%d" .}}`, i)
	}
	return b.String() + strings.Repeat("{{end}}", depth)
}

// manyVariables declares variables and uses the first of them in a loop: each look passes by all others.
func manyVariables(count int) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, `{{$v%d:=1}}`, i)
	}
	return b.String() + `{{range 100000}}` + strings.Repeat(`{{if $v0}}{{end}}`, 500) + `{{end}}`
}

func manyLarge(count int) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, `{{ $v%d := sprig_repeat 1000000 "x" }}`, i)
	}
	return b.String()
}

func allBytes() string {
	text := []byte("{{ ")
	for i := range 256 {
		text = append(text, byte(i))
	}
	return string(text) + " }}"
}

// doubling makes a text of itself until there is no room.
func doubling(expression string) string {
	return `{{ $s := "x" }}{{ range 999 }}{{ $s = ` + expression + ` }}{{ end }}{{ len $s }}`
}

// laughs makes a value of itself until nobody could walk it, and then tries to print it.
func laughs(expression string) string {
	return `{{ $l := sprig_dict "x" "y" }}{{ range 99 }}{{ $l = ` + expression + ` }}{{ end }}{{ $l }}`
}

// laughingYAML is a text of few lines that stands for half a million values.
func laughingYAML() string {
	text := `{{ parseYAML "a: &a [x,x,x,x,x,x,x,x,x]`
	for name := 'b'; name < 'g'; name++ {
		text += fmt.Sprintf(`\n%c: &%[1]c [%s*%c]`, name, strings.Repeat(fmt.Sprintf("*%c,", name-1), 8), name-1)
	}
	return text + `" }}`
}

// hugeAnswers are what Vault could answer at worst.
func hugeAnswers() vault {
	var m, l strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&m, `,"key-%d":%d`, i, i)
		fmt.Fprintf(&l, `,"%d"`, i)
	}
	answers := vault{"huge": "{" + m.String()[1:] + "}", "list": `{"l":[` + l.String()[1:] + `]}`}
	for i := range 1000 {
		answers[fmt.Sprintf("kv/%d", i)] = `{"a":1}`
	}
	return answers
}

// mostPeak is how much memory a hostile template may take at its worst moment: what it may build, twice, for a text grows by
// being copied, and as much again for what the garbage collector has not seen yet.
const mostPeak = 160 << 20

func TestHostileTemplates(t *testing.T) {
	answers := hugeAnswers()
	read := newBook(newPool(), answers.read)
	for _, path := range []string{"huge", "list"} { // what decoding takes is no template's
		if _, err := read.ask(spec.Source{Method: "GET", Path: path, Lenient: true}); err != nil {
			t.Fatal(err)
		}
	}
	r := New()
	runtime.GC()
	floor := memory()
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(int64(floor) + mostPeak/2))
	for name, row := range hostile() {
		t.Run(name, func(t *testing.T) {
			runtime.GC()
			stop := watchMemory()
			began := cpu()
			// The answers are read already; each template has requests of its own.
			b := newBook(newPool(), answers.read)
			e := execution{ask: func(s spec.Source) (answer, error) {
				if s.Path == "huge" || s.Path == "list" {
					return read.ask(s)
				}
				return b.ask(s)
			}}
			got, err := hurried(r, row.text, e)
			took, peak := cpu()-began, stop()
			t.Logf("it computed for %v, with up to %d MiB", took, (max(peak, floor)-floor)>>20)
			text := ""
			if err != nil {
				text = err.Error()
			}
			isExpected := func(want string) bool { return want == "" && err == nil || want != "" && strings.Contains(text, want) }
			ends := append(row.want, string(faultTime))
			if share > 1 {
				ends = append(ends, string(faultSteps), string(faultTouched))
			}
			if !slices.ContainsFunc(ends, isExpected) {
				t.Errorf("got %d bytes, error %q; want one with %q", len(got), text, row.want)
			}
			if err != nil && (got != nil || len(text) > 2000 || strings.ContainsAny(text, "\n\x00")) {
				t.Errorf("got %d bytes beside an error of %d bytes, want none beside a short line", len(got), len(text))
			}
			if len(got) > mostOutput {
				t.Errorf("got %d bytes, want at most %d", len(got), mostOutput)
			}
			if most := slowdown * 6 * time.Second; took > most {
				t.Errorf("it computed for %v, want at most %v", took, most)
			}
			if peak > floor+slowdown*mostPeak {
				t.Errorf("it took %d MiB, want at most %d", (peak-floor)>>20, slowdown*mostPeak>>20)
			}
		})
	}
	if n := r.pool.borrowed.Load(); n != 0 {
		t.Errorf("%d bytes are not given back", n)
	}
	if n := len(r.pool.slots); n != 0 {
		t.Errorf("%d slots are not given back", n)
	}
}

// hurried executes a template that has only a share left of its steps and of what it may hand to functions, if everything is
// slower than it would be: it comes to the same ends, but sooner.
func hurried(r *Renderer, text string, e execution) ([]byte, error) {
	r.pool.enter()
	defer r.pool.leave()
	p, err := r.templates.get(spec.Template{Text: text})
	if err != nil {
		return nil, err
	}
	m := r.templates.take(p)
	defer r.templates.give(p, m)
	now := time.Now()
	return m.once(&run{
		execution: e, budget: budget{pool: r.pool}, deadline: now.Add(mostTime), rest: now.Add(mostTurn),
		steps: mostSteps - mostSteps/share, touched: mostTouched - mostTouched/share,
	})
}

// memory is what the Go runtime has of the machine.
func memory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// watchMemory looks at the memory again and again, until the function that it returns is called: that returns the most.
func watchMemory() func() uint64 {
	var most atomic.Uint64
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			most.Store(max(most.Load(), memory()))
			select {
			case <-end:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() uint64 {
		close(end)
		<-ended
		return most.Load()
	}
}

// cpu is the processor time of the thread that the test is on. It is what the test computed, however busy the machine is.
func cpu() time.Duration {
	runtime.LockOSThread() // for as long as the test lasts
	const thread = 1       // RUSAGE_THREAD
	var usage syscall.Rusage
	if err := syscall.Getrusage(thread, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// prepared returns a machine for a template, and a run of it.
func prepared(t testing.TB, text string) (*machine, *run) {
	t.Helper()
	p, err := parseTemplate(spec.Template{Text: text})
	if err != nil {
		t.Fatal(err)
	}
	e := around(t, sample)
	pool := newPool()
	pool.enter()
	return p.machine(), &run{execution: e, budget: budget{pool: pool}, deadline: time.Now().Add(time.Hour), rest: time.Now().Add(time.Hour)}
}

// TestStepsAreCounted has templates that take ten steps.
func TestStepsAreCounted(t *testing.T) {
	for name, text := range map[string]string{
		"integer":   `{{ range 10 }}{{ end }}`,
		"list":      `{{ range .Data.l }}{{ end }}{{ range 7 }}{{ end }}`,
		"map":       `{{ range .Data.m }}{{ range 4 }}{{ end }}{{ end }}`,
		"channel":   `{{ range loop 10 }}{{ end }}`,
		"function":  `{{ range loop 5000 }}{{ if eq . 9 }}{{ break }}{{ end }}{{ end }}`,
		"continue":  `{{ range 10 }}{{ continue }}{{ end }}`,
		"define":    `{{ define "a" }}{{ end }}{{ define "b" }}{{ template "a" }}{{ end }}` + strings.Repeat(`{{ template "b" }}`, 5),
		"block":     strings.Repeat(`{{ if 1 }}{{ block "a" 1 }}{{ end }}{{ end }}`, 1) + strings.Repeat(`{{ template "a" }}`, 9),
		"in else":   `{{ range 0 }}{{ else }}{{ range 10 }}{{ end }}{{ end }}`,
		"in with":   `{{ with 1 }}{{ range 10 }}{{ end }}{{ end }}`,
		"in define": `{{ define "a" }}{{ range 8 }}x{{ end }}{{ end }}{{ template "a" }}{{ range 1 }}{{ end }}`,
	} {
		t.Run(name, func(t *testing.T) {
			m, r := prepared(t, text)
			r.steps = mostSteps - 10
			if _, err := m.once(r); err != nil {
				t.Errorf("within the bound: got error %v", err)
			}
			m, r = prepared(t, text)
			r.steps = mostSteps - 9
			if _, err := m.once(r); err == nil || !strings.HasSuffix(err.Error(), string(faultSteps)) {
				t.Errorf("one too many: got error %v, want %q", err, string(faultSteps))
			}
		})
	}
}

// TestTimeIsBounded executes templates that have no time left: each way to spend some looks at it.
func TestTimeIsBounded(t *testing.T) {
	for _, text := range []string{
		`{{ range 3 }}{{ end }}`, `{{ define "a" }}{{ end }}{{ template "a" }}`, `{{ 1 }}`, `{{ if print 1 }}{{ end }}`, `{{ $x := toUpper "a" }}`,
		`{{ if eq . 1 }}{{ end }}`, `{{ if index .Data.l 1 }}{{ end }}`, `{{ $x := secret "db" }}`, `{{ $x := sprig_list }}`, `{{ $x := scratch }}`,
		`{{ range .Data.m }}{{ end }}`,
	} {
		m, r := prepared(t, text)
		r.deadline = time.Now().Add(-time.Nanosecond)
		if _, err := m.once(r); err == nil || !strings.HasSuffix(err.Error(), string(faultTime)) {
			t.Errorf("%s: got error %v, want %q", text, err, string(faultTime))
		}
	}
	m, r := prepared(t, `{{ $x := .Format "2006" }}`)
	r.deadline = time.Now().Add(-time.Nanosecond)
	if _, err := execute(m, r, time.Unix(0, 0)); err == nil || !strings.HasSuffix(err.Error(), string(faultTime)) {
		t.Errorf("a method: got error %v, want %q", err, string(faultTime))
	}
}

// TestOutputIsBounded writes a file of just the size, and of a byte more.
func TestOutputIsBounded(t *testing.T) {
	for _, text := range []string{`{{ range 1024 }}{{ printf "%1024s" "" }}{{ end }}`, `{{ range 1024 }}` + strings.Repeat("x", 1024) + `{{ end }}`} {
		if got, err := made(t, text, vault{}); err != nil || len(got) != mostOutput {
			t.Errorf("got %d bytes, %v; want %d", len(got), err, mostOutput)
		}
		if got, err := made(t, text+"x", vault{}); got != "" || err == nil || err.Error() != "template: the file would have more than 1 MiB: make it smaller" {
			t.Errorf("one byte more: got %d bytes, %v; want a short error", len(got), err)
		}
	}
}

// TestBuildingIsBounded tells what a template is charged for, and what not.
func TestBuildingIsBounded(t *testing.T) {
	for name, row := range map[string]struct {
		text string
		want int // bytes
	}{
		"text":             {`{{ $x := print "0123456789" }}`, 10 + sizeOfText},
		"number":           {`{{ $x := add 1 2 }}`, 0},
		"truth value":      {`{{ $x := in "a" "b" }}`, 0},
		"list":             {`{{ $x := sprig_list 1 2 3 }}`, 4 * weightOfValue},
		"map in a loop":    {`{{ range sprig_dict "a" 1 "b" 2 }}{{ end }}`, 5*weightOfValue + 2 + 2*sizeOfRanged},
		"file":             {`0123456789`, 10},
		"what is compared": {`{{ if eq . "text" }}{{ end }}`, 0},
		"constant":         {`{{ $x := "text" }}`, 0},
		"taken before":     {`{{ $x := sprig_repeat 100 "0123456789" }}`, 1000 + sizeOfText},
		"method":           {`{{ $t := sprig_toDate "2006" "2020" }}{{ $x := $t.Format "2006-01-02" }}`, 8*weightOfValue + 10 + sizeOfText},
	} {
		t.Run(name, func(t *testing.T) {
			m, r := prepared(t, row.text)
			r.dot = nil // it would be charged, too
			if _, err := m.once(r); err != nil {
				t.Fatal(err)
			}
			if r.built != row.want {
				t.Errorf("charged %d bytes, want %d", r.built, row.want)
			}
		})
	}
}

// TestLongTextsAreNotHandedOver: what six bytes for each take, a few times over, is bounded before a function is called.
func TestLongTextsAreNotHandedOver(t *testing.T) {
	for _, row := range []struct {
		bytes int
		want  string
	}{{mostHanded, ""}, {mostHanded + 1, "template line 1, column 9: toJSON: texts of more than 2 MiB are too large here"}} {
		m, r := prepared(t, `{{ len (toJSON .) }}`)
		got, err := execute(m, r, strings.Repeat("<", row.bytes))
		switch {
		case row.want == "" && (err != nil || got != fmt.Sprint(6*row.bytes+2)):
			t.Errorf("%d bytes: got %q, %v; want six times as many", row.bytes, got, err)
		case row.want != "" && (err == nil || err.Error() != row.want):
			t.Errorf("%d bytes: got %q, %v; want %s", row.bytes, got, err, row.want)
		}
	}
}

// TestScale weighs values that nobody could walk to the end.
func TestScale(t *testing.T) {
	list := []any{1}
	pairs := map[string]any{"a": 1}
	for range 64 {
		list = []any{list, list}
		pairs = map[string]any{"a": pairs, "b": pairs}
	}
	inItself := map[string]any{}
	inItself["a"] = []any{inItself}
	inType := map[string]map[string]any{"a": {}}
	inType["a"]["a"] = inType
	var pointer any
	pointer = &pointer
	for name, value := range map[string]any{
		"lists": list, "maps": pairs, "a map in itself": inItself, "a typed map in itself": inType, "a pointer to itself": pointer,
		"typed lists": [][]any{list, list}, "a struct of lists": struct{ A, b any }{list, list}, "a long text": strings.Repeat("x", mostValue),
		"many numbers": make([]int64, mostValue/weightOfValue),
	} {
		t.Run(name, func(t *testing.T) {
			s := scale{most: mostValue}
			s.add(value)
			if err := s.err(); err == nil {
				t.Errorf("got %d bytes and no error", s.size())
			}
			if reflect.ValueOf(value).Kind() == reflect.Pointer {
				return // text/template itself goes in a circle, and no template can make such a value
			}
			m, r := prepared(t, `{{ . }}`)
			if got, err := execute(m, r, value); err == nil {
				t.Errorf("it was printed, in %d bytes", len(got))
			}
		})
	}
}

// execute executes a template with any value for its dot.
func execute(m *machine, r *run, dot any) (string, error) {
	m.run = r
	out := output{run: r}
	if err := m.template.Execute(&out, dot); err != nil {
		return "", failure(err)
	}
	return string(out.bytes), nil
}

type (
	named    string
	spoken   struct{ text string }
	failing  struct{}
	pointing struct{ P *int }
)

func (s spoken) String() string { return s.text }
func (failing) Error() string   { return "failed" }

// TestPrintedValues prints values of many types: as package fmt does, or not at all when an address would be printed.
func TestPrintedValues(t *testing.T) {
	number := 5
	for name, row := range map[string]struct {
		value   any
		address bool
	}{
		"nil": {nil, false}, "text": {"a", false}, "named text": {named("a"), false}, "float": {math.Inf(-1), false}, "complex": {3i, false}, "bytes": {[]byte("ab"), false},
		"array": {[2]int{1, 2}, false}, "map": {map[int]bool{2: true, 1: false}, false}, "struct": {struct{ A, b any }{1, "x"}, false},
		"stringer": {spoken{"a"}, false}, "pointer to a stringer": {&spoken{"a"}, false}, "stringers": {[]spoken{{"a"}}, false}, "error": {failing{}, false},
		"pointer": {&number, false}, "pointer to a struct": {&struct{ A int }{1}, false}, "nil pointer": {(*int)(nil), false},
		"time": {time.Unix(0, 0).UTC(), false}, "times": {[]time.Time{time.Unix(0, 0).UTC()}, false}, "duration": {time.Minute, false},
		"list of pointers": {[]any{&number}, true}, "pointer in a struct": {pointing{&number}, true}, "nil pointer in a struct": {pointing{}, false},
		"list of channels": {[]any{make(chan int)}, true}, "list of functions": {[]any{func() {}}, true}, "map of pointers": {map[string]any{"a": &spoken{"a"}, "b": &number}, true},
		"hidden time": {struct{ t time.Time }{time.Now()}, true}, "pointers to stringers": {[]any{&spoken{"a"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			for text, plain := range map[string]func() string{
				`{{ . }}`: nil, `{{ print . }}`: func() string { return fmt.Sprint(row.value) }, `{{ printf "%v" . }}`: func() string { return fmt.Sprint(row.value) },
				`{{ println . }}`: func() string { return fmt.Sprintln(row.value) },
			} {
				m, r := prepared(t, text)
				got, err := execute(m, r, row.value)
				if row.address {
					if err == nil || !strings.Contains(err.Error(), "address") {
						t.Errorf("%s: got %q, %v; want an error that tells of an address", text, got, err)
					}
					continue
				}
				if err != nil && (plain == nil || !strings.Contains(plain(), "0x")) {
					t.Errorf("%s: got error %v", text, err)
				}
				if err == nil && plain != nil && got != plain() {
					t.Errorf("%s: got %q, want %q", text, got, plain())
				}
			}
		})
	}
}

// TestExecutionsAreBoundedTogether lets many templates build much and then wait for Vault: what all of them have is bounded, and
// templates of ordinary size are not hindered.
func TestExecutionsAreBoundedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New()
		e := around(t, sample)
		read := e.ask
		e.ask = func(s spec.Source) (answer, error) {
			time.Sleep(time.Hour)
			return read(s)
		}
		const greedy = 100
		var refused, served int
		results := make(chan error)
		for range greedy {
			go func() {
				_, err := r.execute(spec.Template{Text: `{{ range 4 }}{{ $x := sprig_repeat 1000000 "x" }}{{ end }}{{ (secret "db").Data.username }}`}, e)
				results <- err
			}()
			go func() {
				_, err := r.execute(spec.Template{Text: `{{ $x := sprig_repeat 200000 "x" }}{{ (secret "db").Data.username }}`}, e)
				if err != nil {
					t.Errorf("a template that builds little failed: %v", err)
				}
				results <- nil
			}()
		}
		synctest.Wait()
		if n := r.pool.borrowed.Load(); n > mostTogether || n < mostTogether/2 {
			t.Errorf("%d bytes are borrowed, want about %d and no more", n, mostTogether)
		}
		for range 2 * greedy {
			if err := <-results; err == nil {
				served++
			} else if strings.HasSuffix(err.Error(), string(faultTogether)) {
				refused++
			} else {
				t.Error(err)
			}
		}
		if least := greedy - mostTogether/3_000_000; refused < least {
			t.Errorf("%d were refused and %d not, want at least %d refused", refused, served, least)
		}
		if n := r.pool.borrowed.Load(); n != 0 {
			t.Errorf("%d bytes are not given back", n)
		}
	})
}

// TestPanicOfAFunction: a function's panic is an error without the panic's value.
func TestPanicOfAFunction(t *testing.T) {
	for name, function := range map[string]any{
		"text":    func() string { panic(canary) },
		"error":   func() string { panic(errors.New(canary)) },
		"wrapped": func() (string, error) { panic(fmt.Errorf("%s: %w", canary, fault("a fault"))) },
		"runtime": func() string { return []string{canary}[len(canary)] },
		"returned": func() (string, error) {
			return canary, fmt.Errorf("%s: %w", canary, errors.New(canary))
		},
	} {
		m, r := prepared(t, `{{ print 1 }}`)
		m.template.Funcs(map[string]any{"print": m.guarded(variadic(function))})
		got, err := execute(m, r, nil)
		want := "template line 1, column 4: print: it cannot be called with these arguments"
		if name == "wrapped" {
			want = "template line 1, column 4: print: a fault"
		}
		if err == nil || err.Error() != want || got != "" {
			t.Errorf("%s: got %q, %v; want %s", name, got, err, want)
		}
	}
}

// variadic gives a function without parameters those of print.
func variadic(function any) any {
	switch f := function.(type) {
	case func() string:
		return func(...any) string { return f() }
	case func() (string, error):
		return func(...any) (string, error) { return f() }
	}
	panic("a function of another type")
}
