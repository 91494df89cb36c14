package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

const (
	polls = 1000

	loginPath = "auth/kubernetes/login"
)

// story is what has happened so far. Each step verifies what it tells, and fails if it is not so.
type story struct {
	bed  *bed.Bed
	page *page.Page

	signer   *bed.Signer
	postgres *bed.Postgres
	vault    *bed.Vault
	proxy    *bed.Trouble // counts what the provider asks of Vault
	provider *bed.Provider
	driver   *bed.Driver

	parameters map[string]string // of the class
	volumes    []*bed.Volume     // one of each pod
	logins     []facts.Login     // what each volume holds
}

// play tells the story, up to the point where everything still runs. The caller closes the bed.
func (s *story) play(ctx context.Context) error {
	s.page.Paragraph("Leasehold: every pod gets its own database credentials from Vault, as files, with no sidecar.")
	s.page.Paragraph("What follows is real: a PostgreSQL, a Vault, Leasehold's provider, and the code of the Secrets Store " +
		"CSI driver that calls it. Only the cluster is missing: the demo signs the pods' service account tokens itself.")
	for _, part := range []struct {
		title, why string
		play       func(context.Context, *page.Sheet) error
	}{
		{
			"Start PostgreSQL, Vault and the provider",
			"They listen on 127.0.0.1 alone, and their files lie in one temporary directory.",
			s.start,
		},
		{
			"Configure Vault",
			"The Vault role db-app says which pods may have what. The provider has no privilege of its own in Vault: it logs in as the pod.",
			s.configure,
		},
		{
			"Write a SecretProviderClass",
			"What the pods ask for, written as for HashiCorp's vault-csi-provider.",
			s.writeClass,
		},
		{
			"Mount it into two pods",
			"The driver calls the provider for each pod, before the pod's containers start, and writes the files into the pod's volume.",
			s.mount,
		},
		{
			"Query PostgreSQL as each pod",
			"With nothing but the two files in the pod's volume.",
			s.query,
		},
		{
			"Look at the users from both sides",
			"PostgreSQL has the users, Vault the leases by which it drops them. PostgreSQL's own limit is some seconds later, " +
				"so that no password ends before its lease.",
			s.compare,
		},
		{
			fmt.Sprintf("Poll %d times", polls),
			"The driver asks again every few minutes, in case a file has changed. The provider answers from memory.",
			s.poll,
		},
		{
			"Make two mistakes in the class",
			"The pod's owner reads in the pod's events what is wrong, where, and how to mend it; every fault at once.",
			s.mistake,
		},
		{
			"Mount it into a pod that may not have it",
			"The pod shop/report-0 asks for the same, but its service account is not the one that the Vault role is bound to.",
			s.intrude,
		},
		{
			"Search for secrets where none may be",
			"Vault's audit log, raw in this demo, has every token and every password that there was.",
			s.search,
		},
	} {
		if err := s.page.Step(ctx, part.title, part.why, part.play); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) search(ctx context.Context, text *page.Sheet) error {
	secrets, err := bed.Secrets(s.vault.AuditFile)
	if err != nil {
		return err
	}
	for _, l := range s.logins {
		secrets = append(secrets, l.Password)
	}
	secrets = slices.Compact(slices.Sorted(slices.Values(append(secrets, s.signer.Issued()...))))
	audit, err := os.ReadFile(s.vault.AuditFile)
	if err != nil {
		return err
	}
	if len(bed.Leaks(secrets, map[string][]byte{"audit": audit})) == 0 {
		return errors.New("the search finds nothing in the audit log either, where everything is")
	}
	log, err := s.provider.Log()
	if err != nil {
		return err
	}
	metrics, err := s.provider.Metrics(ctx)
	if err != nil {
		return err
	}
	leaks := bed.Leaks(secrets, map[string][]byte{
		"the provider's log": []byte(log), "the provider's metrics": []byte(metrics), "what was shown": s.page.Told(),
	})
	if len(leaks) > 0 {
		return fmt.Errorf("%d secrets leaked, the first here: %s", len(leaks), leaks[0])
	}
	text.Proved("There were %d secrets. None is in the provider's log (%d lines, debug on), in its metrics or in what you have just read.",
		len(secrets), strings.Count(log, "\n"))
	return nil
}

// end ends all that the story started, and looks whether it has.
func (s *story) end(ctx context.Context) error {
	return s.page.Step(ctx, "Take everything down", "First the provider, then Vault and PostgreSQL.", func(ctx context.Context, text *page.Sheet) error {
		if err := s.bed.Close(); err != nil {
			return err
		}
		if _, err := os.Stat(s.bed.Dir); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%q is still there", s.bed.Dir)
		}
		for _, address := range []string{s.postgres.Address, s.vault.Address, s.provider.Address} {
			host := address
			if u, err := url.Parse(address); err == nil && u.Host != "" {
				host = u.Host
			}
			c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", host)
			if err == nil {
				_ = c.Close()
				return fmt.Errorf("something still listens on %s", host)
			}
		}
		text.Proved("They have ended, their ports are closed, and %s is gone.", s.bed.Dir)
		return nil
	})
}

// epilogue says what to do next.
func (s *story) epilogue(took time.Duration) error {
	s.page.Paragraph(fmt.Sprintf("All of that took %s. Where to go from here:", page.Clock(took)))
	return s.page.Pointers(
		[2]string{"README.md", "how it works, and what it does not do yet"},
		[2]string{"docs/spc-parameters.md", "everything that a SecretProviderClass can say"},
		[2]string{"docs/configuration.md", "the provider's flags, for the operator of a cluster"},
		[2]string{"docs/troubleshooting.md", "what the messages mean"},
		[2]string{"make test", "the same parts, treated badly"},
	)
}
