package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

const (
	chart  = "charts/leasehold"
	folder = "test/cluster/cmd/demo/" // of the manifests
)

// story is what has happened so far. Each step verifies what it tells, and fails if it is not so.
type story struct {
	page       *page.Page
	kubernetes string // the API server's address, as Vault reaches it

	vault    *bed.Vault
	postgres *bed.Postgres

	reviewer string        // the token with which Vault asks the API server; a secret
	pods     []string      // of the Deployment
	logins   []facts.Login // what each pod's volume holds

	billing []string          // the pods that are written for the injector
	bills   map[string]string // the database user of each of them
}

// play tells the story. Everything still runs in the end.
func (s *story) play(ctx context.Context) error {
	s.page.Paragraph("Leasehold: every pod gets its own database credentials from Vault, as files, with no sidecar.")
	s.page.Paragraph("What follows is real: a Kubernetes with one node, the Secrets Store CSI driver, a Vault, a PostgreSQL, " +
		"and Leasehold as its Helm chart installs it.")
	parts := s.setting()
	former, err := s.former(ctx)
	if err != nil {
		return err
	}
	if former {
		parts = append(parts, part{
			"End the pods of an earlier demo",
			"Their users end with them.",
			s.clear,
		})
	}
	for _, part := range append(parts, s.shop()...) {
		if err := s.page.Step(ctx, part.title, part.why, part.play); err != nil {
			return err
		}
	}
	return nil
}

// part is a step of the story: what is done, why, and how.
type part struct {
	title, why string
	play       func(context.Context, *page.Sheet) error
}

// setting is what must be there for any pod.
func (s *story) setting() []part {
	return []part{
		{
			"Look at what is there",
			"A cluster of this machine's own: it lives in namespaces of the kernel and can reach nothing outside.",
			s.look,
		},
		{
			"Configure Vault",
			"The Vault role db-app says which pods may have what. Vault asks the API server whether a pod's token is real, " +
				"by a TokenReview.",
			s.configure,
		},
		{
			"Install Leasehold",
			"The provider, one pod on each node, has no privilege of its own in Vault: it logs in as the pod. The webhook reads " +
				"the annotations that people have for Vault's sidecar injector.",
			s.install,
		},
	}
}

// shop is what the story is about.
func (s *story) shop() []part {
	return []part{
		{
			"Write a SecretProviderClass and start two pods",
			"The class says what the pods ask for, as for HashiCorp's vault-csi-provider. The pods name it in a volume.",
			s.start,
		},
		{
			"Query PostgreSQL inside each pod",
			"With psql and nothing but the two files.",
			s.query,
		},
		{
			"Look at the users from both sides",
			"PostgreSQL has the users, Vault the leases by which it drops them. PostgreSQL's own limit is some seconds later, " +
				"so that no password ends before its lease.",
			s.compare,
		},
		{
			"Watch the driver poll",
			"It asks for each volume again and again, in case a file has changed: here every other second, elsewhere every " +
				"minute or two. Leasehold answers from memory.",
			s.poll,
		},
		{
			"Replace a credential under a running pod",
			"Ten times a second the pod shop/checkout opens a connection with what its files hold at that moment. Leasehold " +
				"renews its lease, and when Vault goes no further, writes another user into the files while the old one still works.",
			s.rotate,
		},
		{
			"Delete a pod",
			"What the pod had ends with it, and not when its lease would.",
			s.remove,
		},
		{
			"Start a pod that may not have it",
			"The pod shop/report asks for the same, but its service account is not the one that the Vault role is bound to.",
			s.refuse,
		},
		{
			"Deploy what is written for the sidecar injector",
			"The webhook makes a class of the annotations, and a volume at /vault/secrets. Each pod runs its own container and " +
				"no other.",
			s.annotated,
		},
		{
			"Let their credentials come to their end",
			fmt.Sprintf("Each user lives for %s at most. The pods read the file anew before each query, and that is all they do.", billingMost),
			s.rotateAll,
		},
		{
			"Scale down",
			"Four of the five pods end.",
			s.scale,
		},
		{
			"Search for secrets where none may be",
			"Vault's audit log, raw in this demo, has every token and every password that there was.",
			s.search,
		},
	}
}

// sides are the two that know of the pods' users.
func (s *story) sides() facts.Sides { return facts.Sides{Postgres: s.postgres, Vault: s.vault} }

func (s *story) compare(ctx context.Context, text *page.Sheet) error {
	return s.sides().Compare(ctx, text, s.logins)
}

// epilogue says how to look around and how to end it.
func (s *story) epilogue(took time.Duration) error {
	s.page.Paragraph(fmt.Sprintf("All of that took %s, and it still runs:", page.Clock(took)))
	if err := s.page.Pointers(
		[2]string{"make cluster-shell", "a shell inside, to look around"},
		[2]string{"make demo", "plays it again"},
		[2]string{"make cluster-down", "ends it; nothing is left"},
	); err != nil {
		return err
	}
	s.page.Gap()
	s.page.Paragraph("Inside the shell, for instance:")
	return s.page.Pointers(lookAround...)
}

// lookAround are commands that work inside the cluster when the story is over.
var lookAround = [][2]string{
	{"kubectl get pods -n shop"},
	{"kubectl exec -n shop deployment/cart -- cat /db/db-user"},
	{"kubectl logs -n shop checkout --follow"},
	{"kubectl describe pod -n shop report"},
	{"kubectl exec -n shop deployment/billing -- cat /vault/secrets/db"},
	{status},
	{"kubectl logs -n leasehold-system daemonset/leasehold-provider"},
	{`psql -c '\du'`},
	{`curl -H "X-Vault-Token: $VAULT_TOKEN" $VAULT_ADDR/v1/` + facts.RolePath},
}

// excerptOf returns a block of one of the story's manifests, as excerpt does.
func excerptOf(file, begin string) (string, error) {
	text, err := os.ReadFile(folder + file)
	if err != nil {
		return "", err
	}
	block, err := excerpt(string(text), begin)
	if err != nil {
		return "", fmt.Errorf("%s%s: %w", folder, file, err)
	}
	return block, nil
}

// excerpt returns a block of a YAML file: the line that is just begin, and all lines below it that belong to it.
func excerpt(text, begin string) (string, error) {
	var block strings.Builder
	depth := -1
	for line := range strings.Lines(text) {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case depth < 0 && strings.TrimSpace(line) == begin:
			depth = indent
		case depth < 0:
			continue
		case strings.TrimSpace(line) != "" && indent <= depth:
			return block.String(), nil
		}
		block.WriteString(line[min(depth, len(line)-1):])
	}
	if depth < 0 {
		return "", fmt.Errorf("there is no line %q", begin)
	}
	return block.String(), nil
}
