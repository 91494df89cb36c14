// Command withvault runs a command with a real Vault and a real PostgreSQL beside it, and ends them with it:
//
//	withvault go test ./internal/client/
//
// The command finds them by environment variables: LEASEHOLD_CONTRACT_VAULT_ADDR, LEASEHOLD_CONTRACT_VAULT_TOKEN (root),
// LEASEHOLD_CONTRACT_VAULT_UNSEAL_KEY and LEASEHOLD_CONTRACT_POSTGRES (the superuser's URL, as Vault reaches it too).
// LEASEHOLD_CONTRACT_REQUIRED=1 tells it that going without them is a failure. Its exit code is withvault's.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"leasehold/test/integration/bed"
)

func main() {
	// A terminal's interrupt reaches the command by itself: it ends, and then we do.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "withvault:", err)
		if code == 0 {
			code = 1
		}
	}
	os.Exit(code)
}

// run returns the command's exit code.
func run(ctx context.Context, command []string) (code int, err error) {
	if len(command) == 0 {
		return 2, errors.New("which command?")
	}
	b, err := bed.Open()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	postgres, err := b.StartPostgres(ctx)
	if err != nil {
		return 1, err
	}
	vault, err := b.StartVault(ctx, bed.VaultOptions{})
	if err != nil {
		return 1, err
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = append(os.Environ(),
		"LEASEHOLD_CONTRACT_VAULT_ADDR="+vault.Address,
		"LEASEHOLD_CONTRACT_VAULT_TOKEN="+vault.RootToken,
		"LEASEHOLD_CONTRACT_VAULT_UNSEAL_KEY="+vault.UnsealKey,
		"LEASEHOLD_CONTRACT_POSTGRES="+postgres.URL("postgres", postgres.Password),
		"LEASEHOLD_CONTRACT_REQUIRED=1",
	)
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if code := exit.ExitCode(); code > 0 {
			return code, nil
		}
		return 1, err // ended by a signal
	}
	return 0, err
}
