package render

import "strings"

// methods are those that a template may give arguments to, by name: of what scratch returns, of points in time, of durations
// and of semantic versions. As with functions, what a library has beside them, or gets in a later version, a template does
// not reach: one that changes a value that others hold as well, for one, or that works on a text of any length.
//
// Methods without arguments need no such list. They make little, for the values that have them are small.
var methods = strings.Fields(`
	Get Key MapSet MapSetX MapValues Set SetX
	Add AddDate After Before Compare Equal Format In Round Sub Truncate
	GreaterThan GreaterThanEqual LessThan LessThanEqual
`)
