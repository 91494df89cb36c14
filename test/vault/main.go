// Command vault is a real Vault server with only the engines and methods that Leasehold's tests and demo use.
//
// It takes the command line and the configuration file of the stock binary, read by Vault's own loader:
//
//	vault server -config=FILE.hcl
//	vault version
//
// so that a stock vault or bao can take its place. Core, barrier, expiration, audit and HTTP handler are Vault's own
// packages; what is left out are the other engines, storage and seal types, high availability, plugins and telemetry.
// It builds in about half the time of the stock binary, and is a third of its size.
//
// As with the stock server, initialising, unsealing and sealing go over the HTTP API, and SIGTERM or SIGINT end it: the
// listeners close, the core seals itself, and what was in file storage is there at the next start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/vault/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(`which command? "server -config=FILE" or "version"`)
	}
	switch args[0] {
	case "version":
		fmt.Printf("Vault v%s (slim, for tests)\n", version.GetVersion().VersionNumber())
		return nil
	case "server":
		flags := flag.NewFlagSet("server", flag.ContinueOnError)
		file := flags.String("config", "", "configuration `FILE` in HCL or JSON")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		if *file == "" || flags.NArg() > 0 {
			return errors.New("server takes exactly one argument: -config=FILE")
		}
		return serve(ctx, *file)
	default:
		return fmt.Errorf(`no command %q here, only "server" and "version"`, args[0])
	}
}
