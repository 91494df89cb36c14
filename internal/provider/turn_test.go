package provider

import (
	"context"
	"errors"
	"testing"
	"time"

	"leasehold/internal/spec"
)

// A Mount has the volume's turn until it has answered: nobody else reads for it, writes into it or shows something
// meanwhile.
func TestMountHasTheTurnUntilItAnswers(t *testing.T) {
	b := newBench(t)
	pod := b.pod("app-0")
	arrived, release := b.hold("GET " + readUser)
	done := make(chan error, 1)
	go func() {
		_, err := pod.mount(t.Context(), userAndPassword)
		done <- err
	}()
	<-arrived
	request := pod.request(userAndPassword)
	mount, err := b.config.Operator.Parse(spec.Request{
		Attributes: request.GetAttributes(), Permission: request.GetPermission(), TargetPath: request.GetTargetPath(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // nobody waits for it in vain: the turn is taken
	defer cancel()
	if volume, err := b.config.Keeper.Open(ctx, mount); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v while a Mount is at work, want context.DeadlineExceeded", err)
		volume.Close()
	}
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
