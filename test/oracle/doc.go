// Package oracle holds the templates of Leasehold to those of consul-template, byte for byte: people come with templates
// that work, and they must go on working.
//
// The archives in testdata/templates have the templates, testdata/vault.txtar has what Vault answers. Every template is
// rendered twice: by consul-template's own code with what its own Vault client makes of the answers, and by
// [leasehold/internal/render] with the same answers. There is no network in between.
//
// A template is one section of an archive. Its header is its name, and after it what is special about it:
//
//	-- name --                                a template that both render, alike
//	-- name fails --                          both fail while they render it
//	-- name fails=parse --                    both fail, and we refuse it before we render it
//	-- name missing_key=error --              a missing key of a map is an error
//	-- name delimiters=[[,]] --               it has other delimiters
//	-- name newline=no --                     its last line does not end with a newline, which an archive cannot say
//	-- name on_purpose=id --                  we differ: consul-template renders something else than we do, which is
//	-- name ours --                           the next section
//	-- name on_purpose=id fails --            we differ: consul-template renders it and we fail
//	-- name on_purpose=id theirs=fails --     we differ: consul-template fails, and we render the next section
//
// An id is the first column of a row in the table "Where it differs from consul-template" of docs/templates.md. Each row
// needs a template that shows it.
//
// Beside the templates that somebody wrote there are those that nobody would: each function with arguments of every kind
// (see TestArguments). They have no expected result but what consul-template makes of them.
package oracle
