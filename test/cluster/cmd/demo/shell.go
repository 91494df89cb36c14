package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"leasehold/test/integration/page"
)

// shell gives a command to a shell, as a user could, and returns what it wrote to standard output.
func shell(ctx context.Context, command string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", command)
	// Helm must be able to note that it was interrupted: a release that it is still at work on cannot be upgraded later.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%q: %w: %s", strings.Join(strings.Fields(command), " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// lines gives a command to a shell and hands over each line that it writes, as it does. It ends the command when each wants no
// more.
func lines(ctx context.Context, command string, each func(line string) (more bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", command)
	cmd.WaitDelay = 5 * time.Second
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	more := true
	for scan := bufio.NewScanner(out); more && scan.Scan(); {
		more = each(scan.Text())
	}
	cancel()
	if err := cmd.Wait(); err != nil && more {
		return fmt.Errorf("%q: %w: %s", strings.Join(strings.Fields(command), " "), err, strings.TrimSpace(errs.String()))
	}
	return nil
}

// show shows a command, runs it, and shows what it answered.
func show(ctx context.Context, text *page.Sheet, command string) error {
	text.Now(strings.TrimRight(strings.SplitN(command, "\n", 2)[0], ` \|`))
	text.Command(command)
	answer, err := shell(ctx, command)
	if err != nil {
		return err
	}
	text.Quote(answer)
	return nil
}

// items runs a command that answers a list of objects in JSON, and reads of each what T has.
func items[T any](ctx context.Context, command string) ([]T, error) {
	answer, err := shell(ctx, command+" --output=json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []T `json:"items"`
	}
	if err := json.Unmarshal([]byte(answer), &list); err != nil {
		return nil, fmt.Errorf("%q: read what it answered: %w", command, err)
	}
	return list.Items, nil
}

// until asks again and again until there is no error any more. If there still is one after the limit, it returns that.
func until(ctx context.Context, limit time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err // and not that the time was over in the middle of asking
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", limit, last)
		}
	}
}
