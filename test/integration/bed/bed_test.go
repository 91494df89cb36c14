package bed_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"leasehold/test/integration/bed"
)

// asChild has the test binary open a bed, tell where it is, and wait to be killed.
const asChild = "BED_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		if err := child(); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func child() error {
	b, vault, postgres, err := openAll(context.Background())
	if err != nil {
		return err
	}
	fmt.Println("ready", b.Dir, vault.Address, postgres.Address)
	select {}
}

func openAll(ctx context.Context) (*bed.Bed, *bed.Vault, *bed.Postgres, error) {
	b, err := bed.Open()
	if err != nil {
		return nil, nil, nil, err
	}
	vault, err := b.StartVault(ctx, bed.VaultOptions{})
	if err != nil {
		return nil, nil, nil, errors.Join(err, b.Close())
	}
	postgres, err := b.StartPostgres(ctx)
	if err != nil {
		return nil, nil, nil, errors.Join(err, b.Close())
	}
	return b, vault, postgres, nil
}

func TestCloseLeavesNothing(t *testing.T) {
	b, vault, postgres, err := openAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := inDir(b.Dir); len(got) == 0 {
		t.Fatal("no process names the bed's directory: this test could not fail")
	}
	if err := b.Close(); err != nil {
		t.Errorf("close: got error %v", err)
	}
	if left := whatIsLeft(b.Dir, vault.Address, postgres.Address); left != "" {
		t.Errorf("left after Close: %s", left)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second close: got error %v", err)
	}
	if _, err := b.StartVault(t.Context(), bed.VaultOptions{}); err == nil {
		t.Error("start in a closed bed: got no error")
	}
}

func TestKilledParentLeavesNothing(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asChild+"=1")
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(line)
	if len(words) != 4 || words[0] != "ready" {
		t.Fatalf("child: got %q, want ready and three words", line)
	}
	if got := len(inDir(words[1])); got < 3 {
		t.Fatalf("processes before the kill: got %d, want Vault, PostgreSQL and the janitor", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	left := ""
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if left = whatIsLeft(words[1], words[2], words[3]); left == "" {
			return
		}
	}
	t.Errorf("left after the parent was killed: %s", left)
}

// whatIsLeft names a process, directory or port of a bed that still exists.
func whatIsLeft(dir string, addresses ...string) string {
	if left := inDir(dir); len(left) > 0 {
		return strings.Join(left, ", ")
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir
	}
	for _, address := range addresses {
		if u, err := url.Parse(address); err == nil && u.Host != "" {
			address = u.Host
		}
		if conn, err := (&net.Dialer{}).Dial("tcp", address); err == nil {
			_ = conn.Close()
			return address
		}
	}
	return ""
}

// inDir returns the processes that work in a directory or name it on their command line.
func inDir(dir string) []string {
	var found []string
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range all {
		line, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		cwd, _ := os.Readlink(filepath.Join(proc, "cwd"))
		if strings.Contains(string(line), dir) || strings.HasPrefix(cwd, dir) {
			found = append(found, filepath.Base(proc)+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	slices.Sort(found)
	return found
}

func TestInterruptIsPassedInOrder(t *testing.T) {
	// A terminal's interrupt goes to the foreground process group: the children must not be in it.
	b, _, _, err := openAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	own := syscall.Getpgrp()
	for _, proc := range inDir(b.Dir) {
		var pid int
		if _, err := fmt.Sscan(proc, &pid); err != nil {
			t.Fatal(err)
		}
		if group, err := syscall.Getpgid(pid); err == nil && group == own {
			t.Errorf("process %q is in the test's process group", proc)
		}
	}
}
