package bed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	startLimit = 30 * time.Second // for a server to answer
	stopLimit  = 15 * time.Second // for a server to end
)

// Process is a child of the bed. Its output goes to a log file that lasts as long as the bed, over all restarts.
type Process struct {
	name    string
	cmd     *exec.Cmd
	logFile string

	ended  chan struct{} // closed when it has ended
	status error         // its exit status; read after ended
}

// Start starts cmd with its output appended to <name>.log. The child is killed when this process ends in any way.
func (b *Bed) Start(name string, cmd *exec.Cmd) (*Process, error) {
	p := &Process{name: name, cmd: cmd, logFile: b.logFile(name), ended: make(chan struct{})}
	log, err := os.OpenFile(p.logFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true // a terminal's interrupt is for us: we end the children in order

	b.mu.Lock()
	closing := b.closing
	b.mu.Unlock()
	if closing {
		return nil, fmt.Errorf("start %s: the bed is closed", name)
	}
	started := make(chan error, 1)
	select {
	case b.starts <- func() { started <- cmd.Start() }:
	case <-b.closed:
		return nil, fmt.Errorf("start %s: the bed is closed", name)
	}
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.status = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (b *Bed) logFile(name string) string { return filepath.Join(b.Dir, name+".log") }

// Until is Within a limit that does for most servers.
func (p *Process) Until(ctx context.Context, ready func(context.Context) error) error {
	return p.Within(ctx, startLimit, ready)
}

// Within waits until ready returns nil. It gives up after the limit and when the process ends, and says what it wrote
// last.
func (p *Process) Within(ctx context.Context, limit time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended before it was ready: %w%s", p.name, status(p.status), p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%w)%s", p.name, err, ctx.Err(), p.lastWords())
		case <-tick.C:
		}
	}
}

// wait waits until the process has ended by itself.
func (p *Process) wait(ctx context.Context) error {
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s: %w", p.name, ctx.Err())
	}
	if p.status != nil {
		return fmt.Errorf("%s: %w%s", p.name, p.status, p.lastWords())
	}
	return nil
}

// Stop tells the process to end and waits until it has. A process that ended by itself, or badly, is an error.
func (p *Process) Stop(signal syscall.Signal) error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s had ended before it was told to: %w%s", p.name, status(p.status), p.lastWords())
	default:
	}
	_ = p.cmd.Process.Signal(signal)
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-p.ended:
		if p.status != nil {
			return fmt.Errorf("%s ended badly: %w%s", p.name, p.status, p.lastWords())
		}
		return nil
	case <-time.After(stopLimit):
		p.Kill()
		return fmt.Errorf("%s did not end within %s of %s and was killed%s", p.name, stopLimit, signal, p.lastWords())
	}
}

// Kill ends the process without a warning.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// lastWords returns the end of the log, indented, to follow a message.
func (p *Process) lastWords() string {
	const most = 20
	text, err := os.ReadFile(p.logFile)
	text = bytes.TrimSpace(text)
	if err != nil || len(text) == 0 {
		return ""
	}
	lines := strings.Split(string(text), "\n")
	lines = lines[max(0, len(lines)-most):]
	return "\n\t" + strings.Join(lines, "\n\t")
}

func status(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// Pid is its process id, for whoever measures it.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// terminate is Stop with SIGTERM.
func (p *Process) terminate() error { return p.Stop(syscall.SIGTERM) }

// end is Kill for those who look at errors.
func (p *Process) end() error {
	p.Kill()
	return nil
}
