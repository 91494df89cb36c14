package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

func (s *story) refuse(ctx context.Context, text *page.Sheet) error {
	if err := show(ctx, text, "kubectl apply -f "+folder+"report.yaml"); err != nil {
		return err
	}
	text.Now("waiting for kubelet's event")
	const events = "kubectl events -n shop --for pod/report --no-headers"
	var complaint string
	err := until(ctx, 30*time.Second, func(ctx context.Context) error {
		listed, err := shell(ctx, events)
		if err != nil {
			return err
		}
		complaint, err = failedMount(listed)
		return err
	})
	if err != nil {
		return err
	}
	text.Command(events)
	text.Complaint(complaint)
	// Vault's reason, and what helps.
	if err := facts.Mentions(complaint, "PermissionDenied", "shop/report", "service account name not authorized", facts.Policy); err != nil {
		return err
	}
	pods, err := items[pod](ctx, "kubectl get pods -n shop --field-selector metadata.name=report")
	if err != nil {
		return err
	}
	if len(pods) != 1 || pods[0].Status.Phase != "Pending" {
		return errors.New("the pod shop/report does not wait, as it should")
	}
	if err := s.sides().OnlyOurs(ctx, s.logins); err != nil {
		return err
	}
	text.Proved("Vault itself refused the login, its reason is in the pod's event, and the pod waits. No user was made.")
	return nil
}

// failedMount returns the newest event of that reason in what kubectl lists: one event a line, the newest last, each with its
// age (which may be several words), type, reason, object and message.
func failedMount(events string) (string, error) {
	last := ""
	for line := range strings.Lines(events) {
		if event := strings.Join(strings.Fields(line), " "); strings.Contains(event, " Warning FailedMount ") {
			last = event
		}
	}
	if last == "" {
		return "", fmt.Errorf("there is no event FailedMount among these: %s", strings.TrimSpace(events))
	}
	return last, nil
}
