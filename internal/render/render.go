// Package render turns Vault's answers into the files of a volume: all of them or none, and equal answers into equal
// bytes, so that a volume that is asked again does not look changed.
package render

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// File is one file of a volume. Its contents are secret: never print it.
type File struct {
	Path     string      // relative to the volume, clean
	Mode     fs.FileMode // 0 to 0777
	Contents []byte
}

// Format prints the path only.
func (f File) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "file %q", f.Path) }

// maxTotal is how many bytes the files of one volume may have together. Kubernetes refuses Secrets beyond it, which the
// driver makes of the files, and the driver's connection ends at four times as much.
const maxTotal = 1 << 20

// Renderer makes files. It keeps the templates that it has parsed, and is safe for concurrent use.
type Renderer struct {
	templates cache
	pool      *pool
}

// New returns a Renderer.
func New() *Renderer { return &Renderer{pool: newPool()} }

// Volume is what the files of a volume are made of.
type Volume struct {
	Objects []spec.Object
	Pod     spec.Pod  // its names, for templates
	Since   time.Time // when the volume logged in: the time of a template that asks for nothing

	// Read gives the grant of a source. It is called once for each, on goroutines of their own unless InTurn.
	Read func(spec.Source) (client.Grant, error)

	// InTurn has the files made one after the other. Where no Read has to wait, that is quicker: to start a goroutine may
	// wake a thread.
	InTurn bool
}

// Files renders all objects or none, sorted by path, and returns what they are made of: the grants of the sources that the
// objects name and of those that their templates asked for, in a stable order of the sources. Each is read once, and all of
// them concurrently as far as they are known, unless InTurn; one that fails does not stop the others, but too many bytes do.
// The error joins an [*Error] for each failure (errors.Join), so that all of them are known at once.
func (r *Renderer) Files(v Volume) ([]File, []client.Grant, error) {
	w := r.newWork(v)
	defer w.book.end()
	contents := make([][]byte, len(v.Objects))
	errs := make([]error, len(v.Objects))
	fill := func(i int, o spec.Object) {
		defer func() {
			// No call on this goroutine's stack could fail in its place. A panic's value may be anything.
			if cause := recover(); cause != nil {
				errs[i] = fmt.Errorf("internal error (a panic of type %T)", cause)
			}
		}()
		contents[i], errs[i] = w.file(o)
	}
	var group sync.WaitGroup
	for i, o := range v.Objects {
		if v.InTurn {
			fill(i, o)
			continue
		}
		group.Go(func() { fill(i, o) })
	}
	group.Wait()

	var files []File
	var failures []error
	left := 0
	failed := make(map[spec.Source]*Error) // by source, for it is named once with all of its objects
	for i, o := range v.Objects {
		err := errs[i]
		if errors.Is(err, errLeftOut) {
			left++
			continue
		}
		if unread := (*unreadError)(nil); errors.As(err, &unread) {
			if failed[unread.source] == nil {
				failed[unread.source] = &Error{Source: unread.source, Err: unread.err, Unfit: unread.unfit}
				failures = append(failures, failed[unread.source])
			}
			failed[unread.source].Objects = append(failed[unread.source].Objects, o.Name)
			continue
		}
		if err != nil {
			failures = append(failures, &Error{Objects: []string{o.Name}, Source: o.Source, Err: err, Unfit: !passes(err)})
			continue
		}
		files = append(files, File{Path: o.Name, Mode: o.Mode, Contents: contents[i]})
	}
	if err := checkTotal(files, left); err != nil {
		failures = append(failures, err)
	}
	if len(failures) > 0 {
		return nil, nil, errors.Join(failures...)
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return files, w.book.grants(), nil
}

// mostNamed is how many objects or keys an error names. An error ends in events and logs.
const mostNamed = 12

// Error is one failure on the way from Vault to a file. errors.As finds the client's error in it, if Vault did not
// give an answer.
type Error struct {
	Objects []string    // names of the objects that fail by it, at least one
	Source  spec.Source // where their bytes were to come from
	Err     error
	Unfit   bool // an answer came, and does not fit what the objects ask of it: the next try has the same end
}

// Error returns one line: the objects and the cause.
func (e *Error) Error() string {
	noun := "object"
	if len(e.Objects) > 1 {
		noun = "objects"
	}
	return fmt.Sprintf("%s %s: %v", noun, quoteList(e.Objects), e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// quoteList quotes the first names of a list and counts the others.
func quoteList(names []string) string {
	var b strings.Builder
	for i, name := range names[:min(len(names), mostNamed)] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(name))
	}
	if more := len(names) - mostNamed; more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}

// checkTotal refuses more bytes than a volume may have, and names the largest files. When there are too many, the other files
// are left out.
func checkTotal(files []File, left int) error {
	total := 0
	for _, f := range files {
		total += len(f.Contents)
	}
	if total <= maxTotal {
		return nil
	}
	largest := slices.SortedStableFunc(slices.Values(files), func(a, b File) int {
		return cmp.Compare(len(b.Contents), len(a.Contents))
	})
	var names, sizes []string
	for _, f := range largest[:min(len(largest), mostNamed)] {
		names = append(names, f.Path)
		sizes = append(sizes, strconv.Itoa(len(f.Contents)))
	}
	without := ""
	if left > 0 { // which ones depends on whose turn came first
		without = fmt.Sprintf(" even without %d of its files", left)
	}
	return &Error{Objects: names, Unfit: true, Err: fmt.Errorf(
		"the volume would have %d bytes%s, more than %d; the largest files have %s bytes: take single fields with secretKey, or "+
			"split the class in two", total, without, maxTotal, strings.Join(sizes, ", "))}
}
