package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"leasehold/test/cluster/host"
	"leasehold/test/cluster/node"
)

// reportsAt is the file descriptor at which process 1 and the supervisor find where to report.
const reportsAt = 3

// inner is this program in the parts that it starts itself.
func inner(ctx context.Context, part string, args []string) (int, error) {
	if part == "janitor" {
		return 0, host.Janitor(args[0], args[1], args[2])
	}
	if part == "owner" {
		var o node.Options
		if err := json.Unmarshal([]byte(args[1]), &o); err != nil {
			return 1, err
		}
		return 0, own(ctx, args[0], o)
	}
	var orders host.Orders
	if err := json.Unmarshal([]byte(args[0]), &orders); err != nil {
		return 1, err
	}
	reports := os.NewFile(reportsAt, "reports")
	if part == "init" {
		self, err := os.Executable()
		if err != nil {
			return 1, err
		}
		code, err := node.Init(orders.Options, orders.Place, []string{self, "supervise", args[0]}, reports)
		if err != nil {
			// Nobody else can tell: this is as far as it came.
			text, _ := json.Marshal(node.Report{Fault: fmt.Sprintf("a machine for the cluster: %v", err)})
			_, _ = reports.Write(text)
		}
		return code, nil
	}
	return 0, node.Run(ctx, orders.Options, orders.Place, reports)
}
