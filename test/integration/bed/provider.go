package bed

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// ProviderOptions say how to start the provider.
type ProviderOptions struct {
	VaultAddress string   // -vault-addr; "" for none
	Args         []string // more flags
	Env          []string // more environment variables, NAME=value
	Dir          string   // of the sockets, the state and the kubelet; "": one of its own. Two providers may share one
	StateDir     string   // of lock and journal, on a tmpfs; "": Dir/state, which may lie on a disk
}

// Provider is a process of the provider's own binary.
type Provider struct {
	Dir      string // of the sockets: vault.sock is here; below it is the kubelet's directory
	StateDir string // of lock and journal
	Address  string // http://host:port of /livez, /readyz and /metrics
	LogFile  string // all that it wrote, at level debug

	binary  string
	process *Process
}

// StartProvider is LaunchProvider, and returns when it is ready.
func (b *Bed) StartProvider(ctx context.Context, o ProviderOptions) (*Provider, error) {
	p, err := b.LaunchProvider(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := p.WaitReady(ctx); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// LaunchProvider starts the binary that the environment variable LEASEHOLD_PROVIDER names, or the one that the Makefile
// builds, and does not wait for it.
func (b *Bed) LaunchProvider(ctx context.Context, o ProviderOptions) (*Provider, error) {
	path, err := builtBinary("provider", "LEASEHOLD_PROVIDER")
	if err != nil {
		return nil, err
	}
	name := b.unique("provider")
	if o.Dir == "" {
		if o.Dir, err = b.newDir("providers"); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(podsDir(o.Dir), 0o750); err != nil {
		return nil, err
	}
	args := []string{
		"--providers-dir=" + o.Dir, "--pods-dir=" + podsDir(o.Dir), "--http-addr=127.0.0.1:0",
		"--log-level=debug", "--log-format=json",
	}
	if o.StateDir == "" {
		o.StateDir = filepath.Join(o.Dir, "state")
		args = append(args, "--journal-on-disk")
	}
	args = append(args, "--state-dir="+o.StateDir)
	if o.VaultAddress != "" {
		args = append(args, "--vault-addr="+o.VaultAddress)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), path, append(args, o.Args...)...)
	cmd.Env = append(withoutVault(os.Environ()), o.Env...)
	process, err := b.Start(name, cmd)
	if err != nil {
		return nil, err
	}
	p := &Provider{Dir: o.Dir, StateDir: o.StateDir, LogFile: process.logFile, binary: path, process: process}
	b.onClose(p.end)
	return p, nil
}

// podsDir is where the kubelet keeps the volumes of the pods that a provider in dir serves.
func podsDir(dir string) string { return filepath.Join(dir, "kubelet", "pods") }

// Journal is the directory of what it holds, a file for each volume.
func (p *Provider) Journal() string { return filepath.Join(p.StateDir, "vault") }

// Status runs "provider status" as an operator does, and returns all that it said. An exit status other than 0 is an error.
func (p *Provider) Status(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.binary, append([]string{"status", "--state-dir=" + p.StateDir}, args...)...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("provider status: %w: %s", err, bytes.TrimSpace(text))
	}
	return string(text), err
}

// WaitReady returns when /readyz says yes.
func (p *Provider) WaitReady(ctx context.Context) error {
	return p.process.Until(ctx, func(ctx context.Context) error {
		if p.Address == "" {
			address, err := p.announced()
			if err != nil {
				return err
			}
			p.Address = "http://" + address
		}
		_, err := p.get(ctx, "/readyz")
		return err
	})
}

// announced finds the address in the provider's first log lines: the port was the kernel's choice.
func (p *Provider) announced() (string, error) {
	text, err := os.ReadFile(p.LogFile)
	if err != nil {
		return "", err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		var line struct {
			HTTP string `json:"http"`
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.HTTP != "" {
			return line.HTTP, nil
		}
	}
	return "", errors.New("no log line with the key \"http\" yet")
}

// Metrics returns the text of /metrics.
func (p *Provider) Metrics(ctx context.Context) (string, error) {
	return p.get(ctx, "/metrics")
}

func (p *Provider) get(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Address+path, nil)
	if err != nil {
		return "", err
	}
	request.Close = true // the provider is to have no connection of ours open when it ends
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: status %d: %s", path, answer.StatusCode, bytes.TrimSpace(text))
	}
	return string(text), nil
}

// Log returns all that the provider wrote so far.
func (p *Provider) Log() (string, error) {
	text, err := os.ReadFile(p.LogFile)
	return string(text), err
}

// Socket is the path of its socket.
func (p *Provider) Socket() string { return filepath.Join(p.Dir, "vault.sock") }

// Interrupt sends a signal and does not wait.
func (p *Provider) Interrupt(signal syscall.Signal) error {
	return p.process.cmd.Process.Signal(signal)
}

// Terminate ends the provider as a kubelet does (SIGTERM) and waits. An exit status other than 0 is an error.
func (p *Provider) Terminate() error { return p.process.terminate() }

// Kill ends the provider without a warning.
func (p *Provider) Kill() { p.process.Kill() }

// Pid is its process id, for whoever measures it.
func (p *Provider) Pid() int { return p.process.Pid() }

// Ended is closed when the process has ended.
func (p *Provider) Ended() <-chan struct{} { return p.process.ended }

// end is Terminate for the bed's Close, where it may have ended already.
func (p *Provider) end() error {
	select {
	case <-p.process.ended:
		return nil
	default:
		return p.Terminate()
	}
}
