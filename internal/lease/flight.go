package lease

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// flight is one request to Vault on its way. It outlives whoever asked for it: a Mount may be cancelled while Vault is
// making a database user, and the user must then be found by the next Mount instead of being made a second time.
type flight[T any] struct {
	name   string        // of the request, as errors say it
	landed chan struct{} // closed when value and err are set
	value  T
	err    error
}

// depart starts request on a goroutine that crew counts.
func depart[T any](crew *sync.WaitGroup, name string, request func() (T, error)) *flight[T] {
	f := &flight[T]{name: name, landed: make(chan struct{})}
	crew.Go(func() {
		defer close(f.landed)
		defer func() {
			// Answers are parsed here, and no call on this goroutine's stack could fail in its place.
			if cause := recover(); cause != nil {
				f.err = &PanicError{Request: name, Type: fmt.Sprintf("%T", cause), Stack: string(debug.Stack())}
			}
		}()
		f.value, f.err = request()
	})
	return f
}

// PanicError is a request that panicked. It tells the type of the panic's value only, for the value may be anything.
type PanicError struct {
	Request, Type string
	Stack         string // many lines, for the log
}

// Error returns one line without the stack.
func (e *PanicError) Error() string {
	return fmt.Sprintf("%s: internal error (a panic of type %s): see the provider's log", e.Request, e.Type)
}

// wait returns what the request gave, or why the context ended if that comes first, with the request's name.
func (f *flight[T]) wait(ctx context.Context) (T, error) {
	select {
	case <-f.landed:
		return f.value, f.err
	case <-ctx.Done():
		var zero T
		return zero, fmt.Errorf("%s: %w", f.name, context.Cause(ctx))
	}
}
