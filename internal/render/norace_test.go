//go:build !race

package render

// slowdown is how much more time and memory the race detector takes, at most: it is off.
const slowdown = 1
