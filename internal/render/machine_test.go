package render

import "time"

// testMachine returns a machine in the middle of an execution, for tests that call functions as Go functions.
func testMachine(around ...execution) *machine {
	r := &run{budget: budget{pool: newPool()}, deadline: time.Now().Add(mostTime), rest: time.Now().Add(mostTime)}
	r.pool.enter()
	for _, e := range around {
		r.execution = e
	}
	return &machine{run: r}
}
