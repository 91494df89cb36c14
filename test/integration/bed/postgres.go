package bed

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const superuser = "postgres"

// Postgres is a real PostgreSQL server from Debian's package, with a superuser "postgres" and a database "postgres".
type Postgres struct {
	Address  string // host:port, the same for the server's whole life
	Password string // the superuser's
	LogFile  string

	bed     *Bed
	name    string
	bin     string // directory of initdb and postgres
	data    string
	owner   *syscall.Credential // nil: ourselves
	process *Process            // nil while it is stopped
}

// StartPostgres makes a database cluster and starts its server, which takes about a second. The server refuses to run as
// root, so root starts it as the user "postgres", whom the package brings along.
func (b *Bed) StartPostgres(ctx context.Context) (*Postgres, error) {
	p, err := b.newPostgres(ctx)
	if err != nil {
		return nil, fmt.Errorf("postgresql: %w", err)
	}
	b.onClose(p.close)
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

func (b *Bed) newPostgres(ctx context.Context) (*Postgres, error) {
	bin, err := postgresBinaries()
	if err != nil {
		return nil, err
	}
	dir, err := b.newDir("postgres")
	if err != nil {
		return nil, err
	}
	port, err := b.port("postgres")
	if err != nil {
		return nil, err
	}
	p := &Postgres{
		Address:  net.JoinHostPort(b.Host, strconv.Itoa(port)),
		Password: rand.Text(),
		bed:      b,
		name:     filepath.Base(dir),
		bin:      bin,
		data:     filepath.Join(dir, "data"),
	}
	p.LogFile = b.logFile(p.name)
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(p.Password+"\n"), 0o600); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		if p.owner, err = postgresUser(); err != nil {
			return nil, err
		}
		uid, gid := int(p.owner.Uid), int(p.owner.Gid)
		if err := errors.Join(os.Chown(dir, uid, gid), os.Chown(password, uid, gid)); err != nil {
			return nil, err
		}
	}
	initdb, err := b.Start(p.name+"-initdb", p.command(ctx, "initdb", "--pgdata="+p.data, "--pwfile="+password, "--username="+superuser,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"))
	if err != nil {
		return nil, err
	}
	if err := initdb.wait(ctx); err != nil {
		return nil, err
	}
	return p, p.admit()
}

// admit lets clients of other addresses in, where the bed does not stand on the loopback interface: initdb itself lets
// in nobody else.
func (p *Postgres) admit() error {
	if p.bed.Host == Loopback {
		return nil
	}
	rules, err := os.OpenFile(filepath.Join(p.data, "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = rules.WriteString("host all all all scram-sha-256\n")
	return errors.Join(err, rules.Close())
}

// postgresBinaries returns the directory of the newest version that is installed.
func postgresBinaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	newest, bin := -1, ""
	for _, initdb := range found {
		dir := filepath.Dir(initdb)
		if version, err := strconv.Atoi(filepath.Base(filepath.Dir(dir))); err == nil && version > newest {
			newest, bin = version, dir
		}
	}
	if bin == "" {
		return "", errors.New("not installed (no /usr/lib/postgresql/*/bin/initdb): " +
			"install Debian's package, by \"apt-get install postgresql-15\"")
	}
	return bin, nil
}

func postgresUser() (*syscall.Credential, error) {
	u, err := user.Lookup(superuser)
	if err != nil {
		return nil, fmt.Errorf("%w: Debian's package postgresql-15 makes it", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

func (p *Postgres) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	cmd.Dir = filepath.Dir(p.data)
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC", "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner}
	return cmd
}

// Start starts a server that was stopped or killed, at the same address and with the same data.
func (p *Postgres) Start(ctx context.Context) error {
	if p.process != nil {
		return fmt.Errorf("%s is running", p.name)
	}
	// In an IPC namespace of its own, a killed server leaves no shared memory on the machine. Not everyone may have that.
	started, err := p.bed.Start(p.name, p.serve(ctx, syscall.CLONE_NEWIPC))
	if errors.Is(err, syscall.EPERM) {
		started, err = p.bed.Start(p.name, p.serve(ctx, 0))
	}
	if err != nil {
		return err
	}
	p.process = started
	err = started.Until(ctx, func(ctx context.Context) error { return p.Login(ctx, superuser, p.Password) })
	if err != nil {
		err = errors.Join(err, p.Kill())
	}
	return err
}

func (p *Postgres) serve(ctx context.Context, namespaces uintptr) *exec.Cmd {
	cmd := p.command(context.WithoutCancel(ctx), "postgres", "-D", p.data)
	cmd.SysProcAttr.Cloneflags = namespaces
	host, port, _ := net.SplitHostPort(p.Address)
	for _, setting := range []string{
		"listen_addresses=" + host, "port=" + port, "unix_socket_directories=", "max_connections=300",
		// Shared memory in the data directory, which goes with the bed.
		"dynamic_shared_memory_type=mmap",
		// Nothing here is to survive the machine.
		"fsync=off", "synchronous_commit=off", "full_page_writes=off",
	} {
		cmd.Args = append(cmd.Args, "-c", setting)
	}
	return cmd
}

// Stop ends the server and all of its connections, and keeps the data.
func (p *Postgres) Stop() error {
	return p.stop(func(s *Process) error { return s.Stop(syscall.SIGINT) })
}

// Kill ends the server without a warning. Its data is as after a crash: the next Start recovers it.
func (p *Postgres) Kill() error {
	return p.stop(func(s *Process) error {
		// Frozen, it makes no more children. They would notice its end, but only after a moment.
		postmaster := s.cmd.Process
		_ = postmaster.Signal(syscall.SIGSTOP)
		orphans := children(postmaster.Pid)
		s.Kill()
		for _, pid := range orphans {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		for deadline := time.Now().Add(stopLimit); slices.ContainsFunc(orphans, runs); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: processes %d do not end", p.name, orphans)
			}
		}
		return nil
	})
}

func (p *Postgres) stop(how func(*Process) error) error {
	if p.process == nil {
		return fmt.Errorf("%s is not running", p.name)
	}
	s := p.process
	p.process = nil
	return how(s)
}

// close is Stop for the bed's Close. Whatever was frozen ends too.
func (p *Postgres) close() error {
	if p.process == nil {
		return nil
	}
	return errors.Join(p.Resume(), p.Stop())
}

// Restart is Stop and Start.
func (p *Postgres) Restart(ctx context.Context) error {
	return errors.Join(p.Stop(), p.Start(ctx))
}

// Pause freezes the server and all of its connections: they stay open, new ones can be made, nothing answers.
func (p *Postgres) Pause() error { return p.signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (p *Postgres) Resume() error { return p.signal(syscall.SIGCONT) }

// signal reaches the postmaster first: once it is frozen, it makes no more children.
func (p *Postgres) signal(signal syscall.Signal) error {
	if p.process == nil {
		return fmt.Errorf("%s is not running", p.name)
	}
	postmaster := p.process.cmd.Process.Pid
	if err := syscall.Kill(postmaster, signal); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	for _, pid := range children(postmaster) {
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// children returns the processes whose parent is pid.
func children(pid int) []int {
	all, _ := filepath.Glob("/proc/[0-9]*")
	var found []int
	for _, dir := range all {
		child, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if stat := processStat(child); len(stat) > 1 && stat[1] == strconv.Itoa(pid) {
			found = append(found, child)
		}
	}
	return found
}

// runs tells whether there is such a process and it is more than an exit status that nobody has read.
func runs(pid int) bool {
	stat := processStat(pid)
	return len(stat) > 0 && stat[0] != "Z"
}

// processStat returns state, parent and so on from /proc/<pid>/stat, and nothing when the process has gone.
func processStat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	// "PID (NAME) STATE PPID ...", and NAME may hold anything.
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// URL is how a user reaches the database "postgres".
func (p *Postgres) URL(user, password string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, password), Host: p.Address, Path: "/postgres",
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Login logs a user in and out again. The error says why it failed, and never the password.
func (p *Postgres) Login(ctx context.Context, user, password string) error {
	return p.query(ctx, user, password, func(*pgx.Conn) error { return nil })
}

// Exec runs statements as the superuser.
func (p *Postgres) Exec(ctx context.Context, statements string) error {
	return p.query(ctx, superuser, p.Password, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, statements)
		return err
	})
}

// Roles returns the names of the users that Vault made: those that begin with "v-", sorted.
func (p *Postgres) Roles(ctx context.Context) ([]string, error) {
	var names []string
	err := p.query(ctx, superuser, p.Password, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, `SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'v-%' ORDER BY 1`)
		if err != nil {
			return err
		}
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return names, err
}

func (p *Postgres) query(ctx context.Context, user, password string, f func(*pgx.Conn) error) error {
	c, err := pgx.Connect(ctx, p.URL(user, password))
	if err != nil {
		return fmt.Errorf("log in to %s as %q: %w", p.name, user, err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	if err := f(c); err != nil {
		return fmt.Errorf("%s as %q: %w", p.name, user, err)
	}
	return nil
}
