// Command pause is the first process of every pod in the cluster: it holds the pod's namespaces while containers come
// and go. It waits for SIGINT or SIGTERM, and for processes whose parent is gone: in a pod whose containers share one
// process namespace, the kernel makes it their parent.
package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// Two channels: a child's end must not take the place of the signal to stop. Each holds one, which is enough,
	// since a signal that finds its channel full says nothing new.
	stop, child := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	signal.Notify(child, syscall.SIGCHLD)
	for {
		select {
		case <-stop:
			return
		case <-child:
			reap()
		}
	}
}

// reap collects all children that have ended: one signal may stand for many.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid == 0 {
			return
		}
	}
}
