// Command cluster gives a machine without anything a real one-node Kubernetes, with containerd, the Secrets Store CSI
// driver, Vault and PostgreSQL, in namespaces of their own that leave nothing behind.
//
//	cluster up [FLAG...]                 start one, or find the one that is up
//	cluster status                       is one up, and how
//	cluster exec [COMMAND [ARGUMENT...]] run something in it: a shell, if nothing else is named
//	cluster down                         end it
//	cluster run [FLAG...] COMMAND [ARGUMENT...]
//	                                     start one of its own, run something in it, end it
//	cluster check                        may this machine and user have one?
//
// and in it
//
//	cluster node start|stop|kill|restart COMPONENT
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	code, err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

const usage = `usage: cluster up|status|exec|down|run|check|node [ARGUMENT...]; "cluster up -help" lists the flags`

// run returns the exit code of what it ran.
func run(ctx context.Context, args []string) (int, error) {
	if len(args) == 0 {
		return 2, errors.New(usage)
	}
	switch command, args := args[0], args[1:]; command {
	case "up":
		return 0, up(ctx, args)
	case "status":
		return 0, status(args)
	case "exec":
		return execute(args)
	case "down":
		return 0, down(args)
	case "run":
		return runIn(ctx, args)
	case "check":
		return 0, check(ctx)
	case "node":
		return 0, control(ctx, args)
	case "owner", "janitor", "init", "supervise": // how this program starts itself
		return inner(ctx, command, args)
	default:
		return 2, errors.New(usage)
	}
}
