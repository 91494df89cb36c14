package node

import (
	"encoding/json"
	"io"
	"sync"
	"time"
)

// Report is a line of what the inside tells the outside, as JSON.
type Report struct {
	Step  string            `json:"step,omitempty"`  // something has been done
	Took  time.Duration     `json:"took,omitempty"`  // and that took so long
	Ready map[string]string `json:"ready,omitempty"` // the cluster is ready: the environment of what is to run in it
	Fault string            `json:"fault,omitempty"` // it will not be ready
}

// reporter writes reports. Steps go on side by side.
type reporter struct {
	mu sync.Mutex // guards to
	to io.Writer
}

// send fails when nobody reads any more: then the cluster has no owner.
func (r *reporter) send(report Report) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return json.NewEncoder(r.to).Encode(report)
}

// step does something and tells how long it took.
func (r *reporter) step(name string, do func() error) error {
	start := time.Now()
	if err := do(); err != nil {
		return err
	}
	return r.send(Report{Step: name, Took: time.Since(start)})
}
