package render

import (
	"fmt"
	"reflect"
	"text/template"
	"time"

	"leasehold/internal/spec"
)

// machine is a parsed template with its functions bound to it. It makes one execution at a time.
type machine struct {
	template *template.Template
	run      *run // the present execution; set for as long as it lasts
}

// run is the state of one execution: what is around it, and what it has used up.
type run struct {
	execution
	budget
	scratch scratch

	deadline time.Time
	rest     time.Time // when it lets others have the slot
	steps    int       // bodies of loops and defines that were begun
	touched  int       // bytes of all values that were handed to functions
	latest   time.Time
	usedTime bool // the template has asked for the time
}

// fault is an error whose text is fit to be shown: it says what is wrong with the arguments of a function and never
// what they are. Any other error of a function is replaced, for it may quote a value.
type fault string

func (f fault) Error() string { return string(f) }

const (
	faultSteps    = fault("the loops and templates take more than 1000000 steps: range over less")
	faultTime     = fault("the template computes for more than 5 seconds: make it simpler")
	faultBuilt    = fault("the template builds more than 32 MiB of texts and lists: make it simpler")
	faultTouched  = fault("the template hands more than 1 GiB of texts and lists to functions: make it simpler")
	faultTogether = fault("what is made of Vault's answers at this moment takes more than 64 MiB together: this is tried again later")
	faultDecoded  = fault("the answers have so many values that the volume takes more than 32 MiB of memory: split the class in two, or keep large secrets as texts")
)

// once makes one execution.
func (m *machine) once(r *run) (contents []byte, err error) {
	m.run = r
	defer func() {
		m.run = nil
		r.end()
		// A panic's value may be anything, and hold anything.
		if cause := recover(); cause != nil {
			contents, err = nil, fmt.Errorf("template: internal error (a panic of type %T)", cause)
		}
	}()
	var dot any
	if r.dot != nil {
		if dot, err = secretOf(*r.dot); err == nil {
			err = r.returns(reflect.ValueOf(dot), r.built)
		}
		if err != nil {
			return nil, fmt.Errorf("template: %w", err)
		}
	}
	out := output{run: r}
	if err := m.template.Execute(&out, dot); err != nil {
		return nil, failure(err)
	}
	return out.bytes, nil
}

// ask returns the answer of a source. While the execution waits for Vault, others compute, and its own time stands still.
func (m *machine) ask(source spec.Source) (answer, error) {
	r := m.run
	if err := r.alive(); err != nil {
		return answer{}, err
	}
	began := time.Now()
	a, err := r.wait(source)
	r.deadline = r.deadline.Add(time.Since(began))
	if err != nil {
		return answer{}, err
	}
	r.latest = later(r.latest, a.grant.Obtained)
	return a, nil
}

// wait asks without the slot.
func (r *run) wait(source spec.Source) (answer, error) {
	r.pool.leave()
	defer r.pool.enter()
	return r.execution.ask(source)
}

// now returns the time that the template sees: not that of the clock, by which a file would change at every look, but when
// the last of what it is made of was obtained.
func (m *machine) now() time.Time {
	m.run.usedTime = true
	return m.run.at
}

// alive tells whether an execution still has time. One that computes for long lets others have the slot now and then: they
// wait a moment for it, and not for as long as it may compute.
func (r *run) alive() error {
	now := time.Now()
	if now.After(r.deadline) {
		return faultTime
	}
	if now.After(r.rest) {
		r.pool.leave()
		r.pool.enter()
		waited := time.Since(now)
		r.deadline, r.rest = r.deadline.Add(waited), now.Add(waited+mostTurn)
	}
	return nil
}

// step begins the body of a loop or of a define.
func (r *run) step() error {
	if r.steps++; r.steps > mostSteps {
		return faultSteps
	}
	return r.alive()
}

// room tells whether an execution may still build that many bytes, and takes them from its budget. A function that can
// make much out of little asks before it builds.
func (r *run) room(bytes int) error {
	return r.take(bytes, mostBuilt, faultBuilt)
}

// touch notes that values of that many bytes are handed to a function.
func (r *run) touch(bytes int) error {
	if r.touched += bytes; r.touched > mostTouched {
		return faultTouched
	}
	return nil
}

// output is the file while it grows.
type output struct {
	run   *run
	bytes []byte
}

func (o *output) Write(text []byte) (int, error) {
	if len(text) > mostOutput-len(o.bytes) {
		return 0, fault("the file would have more than 1 MiB: make it smaller")
	}
	if err := o.run.room(len(text)); err != nil {
		return 0, err
	}
	o.bytes = append(o.bytes, text...)
	return len(text), nil
}
