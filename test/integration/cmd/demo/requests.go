package main

import (
	"strings"

	"leasehold/test/integration/bed"
)

// requests sums what a proxy has counted, whatever the method; on one path, or on all if that is "".
func requests(proxy *bed.Trouble, path string) int {
	total := 0
	for request, n := range proxy.Requests() {
		if path == "" || strings.HasSuffix(request, " "+path) {
			total += n
		}
	}
	return total
}
