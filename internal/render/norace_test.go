//go:build !race

package render

// slowdown is how much more time and memory the race detector takes, at most: it is off.
const slowdown = 1

// share is the part of its budgets that a hostile template has, as one in so many: all.
const share = 1
