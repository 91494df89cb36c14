package render

import (
	"fmt"
	"io"
	"iter"
	"reflect"
	"strconv"
)

// number is an argument of the arithmetic functions. They take every kind of integer and of float, and no texts: a number in
// Vault's answer is a text until parseInt or parseFloat reads it.
type number struct {
	kind  reflect.Kind // Int64, Uint64 or Float64
	int   int64
	uint  uint64
	float float64
}

// numberOf reads an argument of a function, which it names in its error.
func numberOf(function string, value any) (number, error) {
	switch v := reflect.ValueOf(value); {
	case v.CanInt():
		return number{kind: reflect.Int64, int: v.Int()}, nil
	case v.CanUint():
		return number{kind: reflect.Uint64, uint: v.Uint()}, nil
	case v.CanFloat():
		return number{kind: reflect.Float64, float: v.Float()}, nil
	}
	return number{}, fault(fmt.Sprintf("%s: an argument of type %T is no number: convert texts with parseInt or parseFloat",
		function, value))
}

// value returns the number in the widest type of its kind.
func (n number) value() any {
	switch n.kind {
	case reflect.Int64:
		return n.int
	case reflect.Uint64:
		return n.uint
	}
	return n.float
}

// toInt and toFloat convert a number as Go does: what does not fit wraps around.
func (n number) toInt() int64 {
	if n.kind == reflect.Uint64 {
		return int64(n.uint) //nolint:gosec // wraps around as the sum of two integers does
	}
	return n.int
}

func (n number) toFloat() float64 {
	switch n.kind {
	case reflect.Int64:
		return float64(n.int)
	case reflect.Uint64:
		return float64(n.uint)
	}
	return n.float
}

// common brings two numbers to one kind: float if one of them is, unsigned if both are, and else signed.
func common(a, b number) (number, number) {
	switch {
	case a.kind == b.kind:
		return a, b
	case a.kind == reflect.Float64 || b.kind == reflect.Float64:
		return number{kind: reflect.Float64, float: a.toFloat()}, number{kind: reflect.Float64, float: b.toFloat()}
	default:
		return number{kind: reflect.Int64, int: a.toInt()}, number{kind: reflect.Int64, int: b.toInt()}
	}
}

// arithmetic returns a function of two numbers. Its first argument is the right-hand one, for the left-hand one comes
// through a pipe: {{ 7 | subtract 2 }} is 5. Integers wrap around.
func arithmetic(name string, ints func(a, b int64) int64, uints func(a, b uint64) uint64,
	floats func(a, b float64) float64,
) func(right, left any) (any, error) {
	divides := name == "divide" || name == "modulo"
	return func(right, left any) (any, error) {
		a, err := numberOf(name, left)
		if err != nil {
			return nil, err
		}
		b, err := numberOf(name, right)
		if err != nil {
			return nil, err
		}
		a, b = common(a, b)
		switch {
		case a.kind == reflect.Float64 && floats == nil:
			return nil, fault(name + ": takes integers only")
		case a.kind == reflect.Float64:
			return floats(a.float, b.float), nil
		case divides && b.int == 0 && b.uint == 0:
			return nil, fault(name + ": the divisor is zero")
		case a.kind == reflect.Uint64:
			return uints(a.uint, b.uint), nil
		}
		return ints(a.int, b.int), nil
	}
}

// operand is the type in which two numbers are reckoned with.
type operand interface{ int64 | uint64 | float64 }

func sum[T operand](a, b T) T        { return a + b }
func difference[T operand](a, b T) T { return a - b }
func product[T operand](a, b T) T    { return a * b }
func quotient[T operand](a, b T) T   { return a / b }

func remainder[T int64 | uint64](a, b T) T { return a % b }

// choice returns the function minimum or maximum: the one of two numbers that is smaller or greater, in the kind in which it
// came. If neither is, it is the first argument.
func choice(name string, greater bool) func(right, left any) (any, error) {
	return func(right, left any) (any, error) {
		a, err := numberOf(name, left)
		if err != nil {
			return nil, err
		}
		b, err := numberOf(name, right)
		if err != nil {
			return nil, err
		}
		x, y := common(a, b)
		if greater {
			x, y = y, x
		}
		var isLeft bool
		switch x.kind {
		case reflect.Int64:
			isLeft = x.int < y.int
		case reflect.Uint64:
			isLeft = x.uint < y.uint
		default:
			isLeft = x.float < y.float
		}
		if isLeft {
			return a.value(), nil
		}
		return b.value(), nil
	}
}

// maxQueue is how many numbers loop makes ahead of time.
const maxQueue = 1024

// queue is the numbers of a loop, as a channel that is full and closed: unlike a slice it can be ranged over once and with an
// index, as in consul-template, where a goroutine fills it. Nothing waits here for a loop that ends early.
type queue <-chan int64

// Format prints the word loop, and not an address, which would be another one for each volume.
func (queue) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "loop") }

// counter is the numbers of a long loop. The template cannot ask for their index.
type counter iter.Seq[int64]

// Format prints the word loop.
func (counter) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "loop") }

// loop returns the integers from 0, or from the first of two arguments, up to the last argument without it.
func (m *machine) loop(bounds ...any) (any, error) {
	if len(bounds) != 1 && len(bounds) != 2 {
		return nil, fault(fmt.Sprintf("loop: takes 1 or 2 arguments, not %d", len(bounds)))
	}
	var start, stop int64
	for _, bound := range bounds {
		n, err := bound64(bound)
		if err != nil {
			return nil, err
		}
		start, stop = stop, n
	}
	if stop > start && uint64(stop)-uint64(start) > maxQueue { //nolint:gosec // the difference is right, whatever the signs
		return counter(func(yield func(int64) bool) {
			for i := start; i < stop && yield(i); i++ {
			}
		}), nil
	}
	size := max(0, stop-start)
	if err := m.run.room(8 * int(size)); err != nil {
		return nil, err
	}
	numbers := make(chan int64, size)
	for i := start; i < stop; i++ {
		numbers <- i
	}
	close(numbers)
	return queue(numbers), nil
}

func bound64(value any) (int64, error) {
	switch v := reflect.ValueOf(value); {
	case v.CanInt():
		return v.Int(), nil
	case v.CanUint():
		return int64(v.Uint()), nil //nolint:gosec // wraps around, as consul-template does
	case v.Kind() == reflect.String && v.Len() == 0:
		return 0, nil
	case v.Kind() == reflect.String:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n, nil
		}
		return 0, fault("loop: a text among the arguments is no integer")
	}
	return 0, fault(fmt.Sprintf("loop: an argument of type %T is no integer", value))
}
