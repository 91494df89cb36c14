package provider

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"leasehold/internal/observe"
)

// SocketPath is where the driver looks for the provider of that name.
func SocketPath(dir, name string) string { return filepath.Join(dir, name+".sock") }

// Listen binds the provider's socket in the providers' directory, which it makes if it is missing; the mode of one
// that is there is left alone, since it is shared with the driver and other providers.
//
// The socket is bound under a name of its own and then renamed over the driver's name, and it is never unlinked: so
// the name always leads to a socket, through a restart and while a second instance takes over. Connections are
// accepted from root only; the driver is root.
func Listen(dir, name string, log *slog.Logger) (net.Listener, error) {
	return listen(dir, name, 0, log)
}

func listen(dir, name string, uid uint32, log *slog.Logger) (net.Listener, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the providers' directory is traversed by the driver
		return nil, fmt.Errorf("make the providers' directory: %w", err)
	}
	temporary := filepath.Join(dir, "."+name+"."+rand.Text()[:8])
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("bind the provider's socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(temporary, 0o600); err == nil {
		err = os.Rename(temporary, SocketPath(dir, name))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("put the provider's socket in its place: %w", err), l.Close(), os.Remove(temporary))
	}
	return &peerListener{UnixListener: l, uid: uid, log: log}, nil
}

// peerListener accepts connections of one user only. The socket's mode says the same, but the directory is shared, and
// whoever gets hold of the socket would get every pod's secrets.
type peerListener struct {
	*net.UnixListener
	uid uint32
	log *slog.Logger
}

// Accept returns the next connection whose peer is the right user. Others are closed.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		// Only the user is looked at: the driver's process id is 0 here, since it lives in another namespace.
		uid, err := peerUser(conn)
		if err == nil && uid == l.uid {
			return conn, nil
		}
		l.log.Warn("connection refused: the peer is not the driver's user", "uid", uid, observe.KeyError, err)
		_ = conn.Close()
	}
}

// peerUser returns the user at the other end of a connection, as the kernel tells it (SO_PEERCRED).
func peerUser(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *syscall.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		credentials, inner = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, inner); err != nil {
		return 0, err
	}
	return credentials.Uid, nil
}
