package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/page"
)

// places are where no secret may be, each with the command that shows it.
var places = []struct{ name, command string }{
	{"events and objects", "kubectl get events,secretproviderclasspodstatuses -A --output=yaml"},
	{"descriptions", "kubectl describe pods,secretproviderclasses,secretproviderclasspodstatuses -n shop; " +
		"kubectl describe pods -n leasehold-system"},
	{"the provider's log", "kubectl logs -n leasehold-system --selector app.kubernetes.io/component=provider --tail=-1"},
	{"the webhook's log", "kubectl logs -n leasehold-system --selector app.kubernetes.io/component=webhook --tail=-1"},
	{"the provider's status", status + " -o json"},
	{"the driver's log", "kubectl logs -n kube-system --selector app=secrets-store-csi-driver --all-containers --tail=-1"},
	{"the pods' logs", "kubectl logs -n shop --selector app --tail=-1"},
}

func (s *story) search(ctx context.Context, text *page.Sheet) error {
	secrets, err := bed.Secrets(s.vault.AuditFile)
	if err != nil {
		return err
	}
	secrets = append(secrets, s.reviewer, s.vault.RootToken, s.postgres.Password)
	for _, l := range s.logins {
		secrets = append(secrets, l.Password)
	}
	secrets = slices.Compact(slices.Sorted(slices.Values(secrets)))
	audit, err := os.ReadFile(s.vault.AuditFile)
	if err != nil {
		return err
	}
	if len(bed.Leaks(secrets, map[string][]byte{"audit": audit})) == 0 {
		return errors.New("the search finds nothing in the audit log either, where everything is")
	}
	texts := map[string][]byte{"what was shown": s.page.Told()}
	rows := make([][]string, 0, len(places))
	for _, place := range places {
		text.Now(place.name)
		answer, err := shell(ctx, place.command)
		if err != nil {
			return err
		}
		if answer == "" {
			return fmt.Errorf("there is nothing to search in %s", place.name)
		}
		texts[place.name] = []byte(answer)
		rows = append(rows, []string{place.name, fmt.Sprintf("%d lines", strings.Count(answer, "\n"))})
	}
	if leaks := bed.Leaks(secrets, texts); len(leaks) > 0 {
		return fmt.Errorf("%d secrets leaked, the first here: %s", len(leaks), leaks[0])
	}
	text.Table(rows...)
	text.Proved("There were %d secrets. None is in any of these, or in what you have just read.", len(secrets))
	return nil
}
