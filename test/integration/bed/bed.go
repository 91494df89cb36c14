// Package bed is the test bed without a cluster: a real Vault, a real PostgreSQL, the provider's own process and calls
// made by the Secrets Store CSI driver's own code.
//
//	b, err := bed.Open()
//	defer b.Close()
//	postgres, err := b.StartPostgres(ctx)
//	vault, err := b.StartVault(ctx, bed.VaultOptions{})   // initialised and unsealed
//	signer, err := bed.NewSigner(bed.ES256)               // signs service account tokens as a kube-apiserver does
//	err = vault.EnableJWT(ctx, "kubernetes", signer)
//	...
//	provider, err := b.StartProvider(ctx, bed.ProviderOptions{VaultAddress: vault.Address})
//	driver, err := b.NewDriver(provider, signer)
//	volume := driver.NewVolume(pod, "creds", parameters)
//	versions, err := volume.Mount(ctx)
//
// A [Bed] owns all that it starts. Everything listens on one address, 127.0.0.1; everything lies in one temporary directory. After
// [Bed.Close] no process, no port and no directory is left, and neither when the process that opened the bed is killed:
// children die with it, and a janitor, which is a process of its own, removes the directory.
package bed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
)

// Bed owns processes, ports and files. Its methods may be used concurrently.
type Bed struct {
	Dir   string         // all files lie here
	Host  string         // the address that servers listen on: Loopback, unless it is changed before they are started
	Ports map[string]int // where a "vault" or "postgres" is to listen; anywhere free, if it is not named here

	starts  chan func()   // run on one thread that lives as long as the bed: see run
	closed  chan struct{} // ends that thread, and with it what is left of the children
	janitor *exec.Cmd
	alive   io.Closer // while it is open, the janitor waits

	mu       sync.Mutex
	names    map[string]int // how many things of a name there have been
	cleanups []func() error // run last to first
	closing  bool
}

// janitorScript removes the directory, and what is mounted below it, when nobody holds the other end of its input any
// more. The bed's children may take a moment to die, and may write until then.
const janitorScript = `cat >/dev/null
while read -r _ place _; do
	case $place in "$1"/*) umount -l "$place" ;; esac
done </proc/self/mounts
i=0
until rm -rf -- "$1" 2>/dev/null || [ "$i" -ge 100 ]; do i=$((i + 1)); sleep 0.1; done`

// Loopback is where a bed's servers listen by default.
const Loopback = "127.0.0.1"

// Open makes an empty bed in the system's directory for temporary files.
func Open() (*Bed, error) { return OpenIn("") }

// OpenIn makes an empty bed below a directory.
func OpenIn(parent string) (*Bed, error) {
	dir, err := os.MkdirTemp(parent, "leasehold-bed-")
	if err != nil {
		return nil, fmt.Errorf("open bed: %w", err)
	}
	b := &Bed{Dir: dir, Host: Loopback, starts: make(chan func()), closed: make(chan struct{}), names: make(map[string]int)}
	if err := b.startJanitor(); err != nil {
		return nil, errors.Join(fmt.Errorf("open bed: %w", err), os.RemoveAll(dir))
	}
	// PostgreSQL runs as a user of its own, and has to pass through to its directory.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, errors.Join(fmt.Errorf("open bed: %w", err), b.Close())
	}
	go b.run()
	return b, nil
}

// run starts the bed's children. They ask the kernel to be killed when their parent ends, but to the kernel the parent is
// the thread that started them. So one thread starts them all, and it lives as long as the bed.
func (b *Bed) run() {
	runtime.LockOSThread()
	for {
		select {
		case start := <-b.starts:
			start()
		case <-b.closed:
			return
		}
	}
}

func (b *Bed) startJanitor() error {
	in, alive, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // the janitor has its own
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", janitorScript, "bed-janitor", b.Dir)
	cmd.Stdin = in
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a terminal's interrupt is not for the janitor
	if err := cmd.Start(); err != nil {
		return errors.Join(err, alive.Close())
	}
	b.janitor, b.alive = cmd, alive
	return nil
}

// Close ends everything, last started first, and removes the bed's directory. Its error says what did not end as it
// should. A second Close does nothing.
func (b *Bed) Close() error {
	b.mu.Lock()
	again, cleanups := b.closing, b.cleanups
	b.closing, b.cleanups = true, nil
	b.mu.Unlock()
	if again {
		return nil
	}
	var errs []error
	for i := len(cleanups) - 1; i >= 0; i-- {
		errs = append(errs, cleanups[i]())
	}
	close(b.closed)
	errs = append(errs, unmountAll(b.Dir), os.RemoveAll(b.Dir), b.alive.Close(), b.janitor.Wait())
	return errors.Join(errs...)
}

// onClose has Close call f, before what was registered earlier.
func (b *Bed) onClose(f func() error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cleanups = append(b.cleanups, f)
}

// unique returns name the first time, then name-2, name-3 and so on.
func (b *Bed) unique(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.names[name]++
	if n := b.names[name]; n > 1 {
		return name + "-" + strconv.Itoa(n)
	}
	return name
}

// newDir makes a directory of that unique name in the bed.
func (b *Bed) newDir(name string) (string, error) {
	dir := filepath.Join(b.Dir, b.unique(name))
	return dir, os.Mkdir(dir, 0o700)
}

// port returns the port for a server of that name.
func (b *Bed) port(name string) (int, error) {
	if port, fixed := b.Ports[name]; fixed {
		return port, nil
	}
	return freePort()
}

// freePort returns a port of 127.0.0.1 that nobody listens on. It lies below the range that the kernel takes for outgoing
// connections, so that it is still free when a server that was stopped comes back to it.
func freePort() (int, error) {
	const first, last = 18000, 31999
	for range 100 {
		port := first + rand.IntN(last-first+1)
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("no free port between %d and %d", first, last)
}

// builtBinary returns the path that the first set environment variable names, or the one that the Makefile builds.
func builtBinary(name string, variables ...string) (string, error) {
	for _, variable := range variables {
		path := os.Getenv(variable)
		if path == "" {
			continue
		}
		path, err := exec.LookPath(path)
		if err != nil {
			return "", fmt.Errorf("%s: %w", variable, err)
		}
		return filepath.Abs(path)
	}
	root, err := repository()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "build", "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w; run \"make build-%s\", or name another one in %s", err, name, variables[0])
	}
	return path, nil
}

// repository finds the folder of Leasehold's root module, from the working directory upwards.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for from := dir; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && isRoot(text) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%q is not in Leasehold's repository", from)
		}
	}
}

func isRoot(goMod []byte) bool {
	const line = "module leasehold\n"
	return len(goMod) >= len(line) && string(goMod[:len(line)]) == line
}
