//go:build race

package render

// slowdown is how much more time and memory the race detector takes, at most.
const slowdown = 4

// share is the part of its budgets that a hostile template has, as one in so many: see hurried. Without the race detector it
// has all of them.
const share = 10
