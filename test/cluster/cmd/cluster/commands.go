package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"leasehold/test/cluster/host"
	"leasehold/test/cluster/node"
)

// build is where make put this program and everything else.
func build() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.Dir(filepath.Dir(path)), nil
}

// flags are those of up and run. The rest of the arguments is for the caller.
func flags(name string, args []string) (node.Options, host.Home, []string, error) {
	var o node.Options
	var h host.Home
	f := flag.NewFlagSet("cluster "+name, flag.ContinueOnError)
	f.StringVar(&o.KubeletRoot, "kubelet-root-dir", "/var/lib/kubelet", "kubelet's root `directory`")
	f.DurationVar(&o.SyncFrequency, "sync-frequency", time.Second, "kubelet asks for volumes again every one to two of it")
	f.DurationVar(&o.RestartPeriod, "restart-period", time.Second, "longest pause before a container that failed starts again")
	f.BoolVar(&o.Driver, "driver", true, "install the Secrets Store CSI driver")
	f.BoolVar(&o.Rotation, "rotation", true, "the driver polls its providers")
	f.DurationVar(&o.RotationInterval, "rotation-interval", time.Second, "it does so that often at most")
	f.StringVar(&h.Dir, "dir", "", "`directory` by which the cluster is found again")
	if err := f.Parse(args); err != nil {
		return o, h, nil, err
	}
	h, err := home(h)
	return o, h, f.Args(), errors.Join(err, o.Validate())
}

// home is where a cluster is looked for if nobody says otherwise.
func home(h host.Home) (host.Home, error) {
	if h.Dir != "" {
		return h, nil
	}
	if h.Dir = os.Getenv("LEASEHOLD_CLUSTER"); h.Dir != "" {
		return h, nil
	}
	b, err := build()
	h.Dir = filepath.Join(b, "cluster")
	return h, err
}

// found is the cluster that args name by -dir, or the usual one.
func found(name string, args []string) (host.Home, host.State, []string, error) {
	var h host.Home
	f := flag.NewFlagSet("cluster "+name, flag.ContinueOnError)
	f.StringVar(&h.Dir, "dir", "", "`directory` by which the cluster is found")
	if err := f.Parse(args); err != nil {
		return h, host.State{}, nil, err
	}
	h, err := home(h)
	if err != nil {
		return h, host.State{}, nil, err
	}
	s, err := h.State()
	return h, s, f.Args(), err
}

// tell shows a step that was done.
func tell(step string, took time.Duration) error {
	_, err := fmt.Fprintf(os.Stderr, "cluster: %5.1f s  %s\n", took.Seconds(), step)
	return err
}

// up starts an owner that stays, and returns when it says that the cluster is ready.
func up(ctx context.Context, args []string) error {
	o, h, rest, err := flags("up", args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("up takes no argument %q", rest)
	}
	if s, err := h.State(); err == nil {
		if s.Options != o {
			return errors.New(`a cluster with other options is up: end it first by "make cluster-down"`)
		}
		if err := refresh(s); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "cluster: up since %s\n", s.Since.Format(time.TimeOnly))
		return nil
	} else if !errors.Is(err, host.ErrDown) {
		return err
	}
	start := time.Now()
	log, err := os.Create(filepath.Join(h.Dir, "owner.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the owner has its own
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	progress, write, err := os.Pipe()
	if err != nil {
		return err
	}
	owner := exec.CommandContext(context.WithoutCancel(ctx), "/proc/self/exe", "owner", h.Dir, string(text))
	owner.Stdout, owner.Stderr = write, log
	owner.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(owner.Start(), write.Close()); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = owner.Process.Signal(syscall.SIGTERM) })
	defer stop()
	ready := false
	for lines := bufio.NewScanner(progress); lines.Scan(); {
		if ready = lines.Text() == readyLine; ready {
			break
		}
		fmt.Fprintln(os.Stderr, lines.Text())
	}
	if !ready {
		err := owner.Wait()
		if ctx.Err() != nil {
			return errors.New("interrupted; nothing is left")
		}
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w\n%s", err, strings.TrimSpace(string(said)))
	}
	fmt.Fprintf(os.Stderr, "cluster: ready after %.1f s\n", time.Since(start).Seconds())
	return nil
}

// readyLine is how the owner tells up that it may go.
const readyLine = "ready"

// own is the owner that up starts.
func own(ctx context.Context, dir string, o node.Options) error {
	b, err := build()
	if err != nil {
		return err
	}
	owner, err := host.Start(host.Home{Dir: dir}, o, b)
	if err != nil {
		return err
	}
	_, err = owner.Wait(ctx, func(step string, took time.Duration) error {
		// Nobody reads any more if up was killed: then nobody wants the cluster.
		_, err := fmt.Printf("cluster: %5.1f s  %s\n", took.Seconds(), step)
		return err
	})
	if err == nil {
		_, err = fmt.Println(readyLine)
	}
	if err == nil {
		err = owner.Stay(ctx)
	}
	return errors.Join(err, owner.Close())
}

// refresh gives a cluster that is up the images that were built since.
func refresh(s host.State) error {
	archives, err := filepath.Glob(filepath.Join(s.Place.Build, "images", "*.tar"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		info, err := os.Stat(archive)
		if err != nil {
			return err
		}
		if info.ModTime().After(s.Since) {
			start := time.Now()
			cmd := s.Command([]string{filepath.Join(s.Place.Build, "bin", "cluster"), "node", "load"})
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("give the new images to the cluster that is up: %w", err)
			}
			return tell("images that are newer than the cluster", time.Since(start))
		}
	}
	return nil
}

func status(args []string) error {
	h, s, _, err := found("status", args)
	if errors.Is(err, host.ErrDown) {
		fmt.Println("no cluster is up")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Printf("up since %s: process %d, found by %s\n", s.Since.Format(time.DateTime), s.Owner, h.Dir)
	fmt.Printf("logs: %s\n", filepath.Join(s.Place.Scratch, "leasehold-bed-*", "*.log"))
	cmd := s.Command([]string{"kubectl", "get", "nodes,pods", "--all-namespaces", "--output=wide"})
	return cmd.Run()
}

// execute becomes the program that is to run in the cluster.
func execute(args []string) (int, error) {
	_, s, command, err := found("exec", args)
	if err != nil {
		return 1, err
	}
	if len(command) == 0 {
		command = []string{"bash", "--norc"}
		s.Environment["PS1"] = `(cluster) \w\$ `
	}
	return exit(s.Command(command).Run())
}

// exit takes the exit code out of a program's end.
func exit(err error) (int, error) {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return max(ended.ExitCode(), 1), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

func down(args []string) error {
	h, _, _, err := found("down", args)
	if errors.Is(err, host.ErrDown) {
		fmt.Fprintln(os.Stderr, "cluster: none is up")
		return nil
	}
	if err != nil {
		return err
	}
	start := time.Now()
	if err := h.Down(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "cluster: down after %.1f s; nothing is left\n", time.Since(start).Seconds())
	return nil
}

// runIn owns a cluster for the time of one command.
func runIn(ctx context.Context, args []string) (int, error) {
	o, h, command, err := flags("run", append([]string{"-dir=none"}, args...))
	if err != nil {
		return 2, err
	}
	if len(command) == 0 {
		return 2, errors.New("run: which command?")
	}
	if h.Dir == "none" {
		if h.Dir, err = os.MkdirTemp("", "leasehold-cluster-home-"); err != nil {
			return 1, err
		}
		h.Private = true
		defer func() { _ = os.RemoveAll(h.Dir) }() // if no janitor came to be
	}
	b, err := build()
	if err != nil {
		return 1, err
	}
	start := time.Now()
	owner, err := host.Start(h, o, b)
	if err != nil {
		return 1, err
	}
	s, err := owner.Wait(ctx, tell)
	if err != nil {
		return 1, errors.Join(err, owner.Close())
	}
	fmt.Fprintf(os.Stderr, "cluster: ready after %.1f s\n", time.Since(start).Seconds())
	cmd := s.Command(command)
	cmd.Env = append(cmd.Env, "LEASEHOLD_CLUSTER="+h.Dir)
	if err := cmd.Start(); err != nil {
		return 1, errors.Join(err, owner.Close())
	}
	// What a terminal's interrupt does not reach, we end; it dies with the cluster in any case.
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	code, err := exit(cmd.Wait())
	return code, errors.Join(err, owner.Close())
}

// control is told within the cluster.
func control(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "load":
		return node.Control(ctx, "load")
	case len(args) == 2:
		return node.Control(ctx, args[1]+"/"+args[0])
	default:
		return fmt.Errorf("%q is not what a node can be told: cluster %s", args, node.Usage)
	}
}
