package render

import (
	"math"
	"strings"
	"testing"
)

func TestArithmetic(t *testing.T) {
	check(t, []row{
		{template: `{{ add 2 3 }} {{ subtract 2 7 }} {{ multiply 2 3 }} {{ divide 2 7 }} {{ modulo 2 7 }}`, want: "5 5 6 3 1"},
		{template: `{{ 7 | subtract 2 | multiply 3 }}`, want: "15"},
		{template: `{{ add 2.5 1 }} {{ divide 2.0 7 }} {{ divide 2 -7 }} {{ modulo 2 -7 }}`, want: "3.5 3.5 -3 -1"},
		{template: `{{ printf "%T" (add 1 2) }} {{ printf "%T" (add (parseUint "1") 2) }}`, want: "int64 int64"},
		{template: `{{ printf "%T" (add (parseUint "1") (parseUint "2")) }} {{ printf "%T" (add 1.0 2) }}`, want: "uint64 float64"},
		{template: `{{ add (parseUint "2") 0.5 }} {{ subtract (parseUint "2") (parseUint "1") }}`, want: "2.5 18446744073709551615"},
		{template: `{{ add 1 9223372036854775807 }} {{ divide -1 -9223372036854775808 }}`, want: "-9223372036854775808 -9223372036854775808"},
		{template: `{{ divide 0.0 1 }} {{ divide 0 1.0 }}`, want: "+Inf +Inf"},
		{template: `{{ divide 0 1 }}`, fails: "divide: the divisor is zero"},
		{template: `{{ modulo 0 1 }}`, fails: "modulo: the divisor is zero"},
		{template: `{{ divide (parseUint "0") (parseUint "1") }}`, fails: "divide: the divisor is zero"},
		{template: `{{ modulo 2.5 1 }}`, fails: "modulo: takes integers only"},
		{template: `{{ modulo 1 2.5 }}`, fails: "modulo: takes integers only"},
		{template: `{{ add "1" 2 }}`, fails: "add: an argument of type string is no number"},
		{template: `{{ add 1 .number }}`, fails: "add: an argument of type json.Number is no number"},
		{template: `{{ subtract nil 2 }}`, fails: "subtract: an argument of type <nil> is no number"},
		{template: `{{ multiply true 2 }}`, fails: "multiply: an argument of type bool is no number"},
		{template: `{{ add 1 }}`, fails: "wrong number of args"},
	})
}

func TestMinimumAndMaximum(t *testing.T) {
	check(t, []row{
		{template: `{{ minimum 2 7 }} {{ maximum 2 7 }} {{ minimum 7 2 }} {{ maximum 7 2 }}`, want: "2 7 2 7"},
		{template: `{{ minimum 2.5 2 }} {{ maximum 2.5 2 }} {{ maximum 2 2.5 }}`, want: "2 2.5 2.5"},
		{template: `{{ printf "%T" (minimum 2.5 2) }} {{ printf "%T" (minimum 1 (parseUint "2")) }}`, want: "int64 int64"},
		{template: `{{ printf "%T" (maximum 1 (parseUint "2")) }} {{ printf "%T" (maximum (parseUint "2") 1) }}`, want: "uint64 uint64"},
		{template: `{{ printf "%T" (minimum 2.0 2) }} {{ printf "%T" (maximum 2 2.0) }}`, want: "float64 int64"}, // the first, if equal
		{template: `{{ minimum -1 (parseUint "18446744073709551615") }}`, want: "-1"},
		{template: `{{ maximum "" 2 }}`, fails: "maximum: an argument of type string is no number"},
		{template: `{{ minimum 2 "" }}`, fails: "minimum: an argument of type string is no number"},
	})
}

func TestLoop(t *testing.T) {
	check(t, []row{
		{template: `{{ range loop 5 }}{{ . }} {{ end }}`, want: "0 1 2 3 4 "},
		{template: `{{ range $i := loop 2 4 }}{{ $i }} {{ end }}`, want: "2 3 "},
		{template: `{{ range $i, $n := loop 5 7 }}{{ $i }}={{ $n }} {{ end }}`, want: "0=5 1=6 "},
		{template: `{{ range loop "1" "3" }}{{ . }}{{ end }} {{ range loop (parseUint "2") }}{{ . }}{{ end }}`, want: "12 01"},
		{template: `{{ range loop 0 }}x{{ else }}none{{ end }} {{ range loop 3 1 }}x{{ else }}none{{ end }}`, want: "none none"},
		{template: `{{ range loop "" }}x{{ else }}none{{ end }}`, want: "none"},
		{template: `{{ range loop 5 }}{{ if gt . 2 }}{{ break }}{{ end }}{{ . }}{{ end }}`, want: "012"},
		{template: `{{ $l := loop 2 }}{{ range $l }}{{ . }}{{ end }}{{ range $l }}{{ . }}{{ else }} used up{{ end }}`, want: "01 used up"},
		{template: `{{ range loop 9223372036854775807 }}{{ if eq . 2000 }}{{ . }}{{ break }}{{ end }}{{ end }}`, want: "2000"},
		{template: `{{ range loop -9223372036854775808 9223372036854775807 }}{{ . }}{{ break }}{{ end }}`, want: "-9223372036854775808"},
		{template: `{{ $n := 0 }}{{ range loop 3 5000 }}{{ $n = . }}{{ end }}{{ $n }}`, want: "4999"},
		{template: `{{ print (loop 3) (loop 5000) }}`, want: "loop loop"},
		{template: `{{ printf "%s %v" (loop 3) (loop 5000) }}`, want: "loop loop"},
		{template: `{{ loop 3 }}`, fails: "can't print"},
		{template: `{{ loop }}`, fails: "loop: takes 1 or 2 arguments, not 0"},
		{template: `{{ loop 1 2 3 }}`, fails: "loop: takes 1 or 2 arguments, not 3"},
		{template: `{{ loop .canary }}`, fails: "loop: a text among the arguments is no integer"},
		{template: `{{ loop 1.5 }}`, fails: "loop: an argument of type float64 is no integer"},
		{template: `{{ loop nil }}`, fails: "loop: an argument of type <nil> is no integer"},
	})
}

// A loop is one channel or function, however long: what it takes in memory is bounded, and nothing is left behind.
func TestLoopTakesLittle(t *testing.T) {
	b := newBench(nil)
	for _, size := range []any{maxQueue, maxQueue + 1, int64(math.MaxInt64), uint64(math.MaxUint64)} {
		if allocations := testing.AllocsPerRun(5, func() {
			if _, err := b.loop(size); err != nil {
				t.Fatal(err)
			}
		}); allocations > 20 {
			t.Errorf("loop %d: got %v allocations, want a few", size, allocations)
		}
	}
	if got, err := b.execute(`{{ range loop 1024 }}{{ break }}{{ end }}`, nil); err != nil || strings.TrimSpace(got) != "" {
		t.Errorf("got %q, error %v", got, err)
	}
}
