package render

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// maxSources is how many requests to Vault the files of one volume may take: each is a lease or a secret to hold.
const maxSources = 100

// book has the answers for the files of one volume: each source is read once, however many objects and templates ask for
// it, so that user name and password belong together.
type book struct {
	read func(spec.Source) (client.Grant, error)

	mu      sync.Mutex
	entries map[spec.Source]*entry
	decoded budget // of all answers, by an estimate that is never too low
}

// entry is one source of a book.
type entry struct {
	once   sync.Once
	answer answer
	err    error // an [*unreadError]
}

func newBook(pool *pool, read func(spec.Source) (client.Grant, error)) *book {
	return &book{read: read, decoded: budget{pool: pool}, entries: make(map[spec.Source]*entry)}
}

// end gives back what was borrowed. The answers are not used any more.
func (b *book) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.decoded.end()
}

// room takes the bytes of an answer from what the volume, and all volumes together, may have decoded.
func (b *book) room(bytes int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.decoded.take(bytes, mostDecoded, faultDecoded)
}

// unreadError tells that a source gave nothing to make a file of.
type unreadError struct {
	source spec.Source
	err    error
	unfit  bool // err is what is wrong with an answer that came
}

func (e *unreadError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *unreadError) Unwrap() error { return e.err }

// ask returns the answer of a source, and waits for it. Its errors are [*unreadError]. Whoever changes the answer's data
// works on a copy: see answer.values.
func (b *book) ask(source spec.Source) (answer, error) {
	b.mu.Lock()
	e, found := b.entries[source]
	if !found {
		if len(b.entries) >= maxSources {
			b.mu.Unlock()
			return answer{}, &unreadError{source, fmt.Errorf("read %q: the volume's files need more than %d requests to Vault: "+
				"split the class in two", source.Path, maxSources), true}
		}
		e = &entry{}
		b.entries[source] = e
	}
	b.mu.Unlock()
	e.once.Do(func() {
		defer func() {
			if cause := recover(); cause != nil { // it may be anything
				e.err = &unreadError{source, fmt.Errorf("read %q: internal error (a panic of type %T)", source.Path, cause), false}
			}
		}()
		grant, err := b.read(source)
		if err != nil {
			e.err = &unreadError{source, err, false}
			return
		}
		if err := b.room(sizeDecoded(grant.Data.Reveal())); err != nil {
			e.err = &unreadError{source, fmt.Errorf("read %q: %w", source.Path, err), !passes(err)}
			return
		}
		if e.answer, err = decode(grant); err != nil {
			e.err = &unreadError{source, err, true}
		}
	})
	return e.answer, e.err
}

// grants returns all that was given, in a stable order of the sources.
func (b *book) grants() []client.Grant {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]client.Grant, 0, len(b.entries))
	for _, e := range b.entries {
		list = append(list, e.answer.grant)
	}
	slices.SortFunc(list, func(a, b client.Grant) int {
		return cmp.Or(cmp.Compare(a.Source.Path, b.Source.Path), cmp.Compare(a.Source.Method, b.Source.Method),
			cmp.Compare(a.Source.Args, b.Source.Args))
	})
	return list
}
