//go:build race

package render

// slowdown is how much more time and memory the race detector takes, at most.
const slowdown = 4
