package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

// pod is what the story asks of a pod.
type pod struct {
	Metadata struct{ Name, UID, DeletionTimestamp string }
	Status   struct {
		Phase      string
		Conditions []struct{ Type, Status string }
	}
}

func (p pod) ready() bool {
	return p.Metadata.DeletionTimestamp == "" && slices.ContainsFunc(p.Status.Conditions, func(c struct{ Type, Status string }) bool {
		return c.Type == "Ready" && c.Status == "True"
	})
}

func (s *story) start(ctx context.Context, text *page.Sheet) error {
	class, err := os.ReadFile(folder + "class.yaml")
	if err != nil {
		return err
	}
	volumes, err := excerptOf("cart.yaml", "volumes:")
	if err != nil {
		return err
	}
	text.Line(folder + "class.yaml")
	text.Quote(string(class))
	text.Line("of " + folder + "cart.yaml")
	text.Quote(volumes)

	begin := time.Now()
	if err := show(ctx, text, "kubectl apply -f "+folder+"class.yaml -f "+folder+"cart.yaml"); err != nil {
		return err
	}
	text.Now("two pods start")
	// It takes a second or two. But after Leasehold was away for a while, as when somebody uninstalled it, the driver waits up
	// to two minutes before it connects to it again.
	if err := wait(ctx, "kubectl rollout status deployment/cart -n shop --timeout=180s"); err != nil {
		return err
	}
	took := time.Since(begin)
	if err := show(ctx, text, "kubectl get pods -n shop"); err != nil {
		return err
	}
	if s.pods, s.logins, err = carts(ctx); err != nil {
		return err
	}
	if err := s.sides().OnlyOurs(ctx, s.logins); err != nil {
		return err
	}
	text.Proved("Both were ready %s after they were asked for. Two pods of one service account, one class: two users, two passwords.",
		page.Clock(took))
	return nil
}

// carts returns the Deployment's two pods and what each pod's volume holds, in the same order. No two may have anything in
// common.
func carts(ctx context.Context) (names []string, logins []facts.Login, err error) {
	pods, err := items[pod](ctx, "kubectl get pods -n shop --selector app=cart")
	if err != nil {
		return nil, nil, err
	}
	for _, p := range pods {
		if !p.ready() {
			return nil, nil, fmt.Errorf("the pod %s is not ready", p.Metadata.Name)
		}
		l, err := files(ctx, p.Metadata.Name)
		if err != nil {
			return nil, nil, err
		}
		names, logins = append(names, p.Metadata.Name), append(logins, l)
	}
	if len(names) != 2 {
		return nil, nil, fmt.Errorf("there are %d pods, want 2", len(names))
	}
	return names, logins, facts.Distinct(logins)
}

// wait runs a command that waits for pods of the shop. If they do not come, its error has what kubelet complains of.
func wait(ctx context.Context, command string) error {
	if _, err := shell(ctx, command); err != nil {
		return fmt.Errorf("%w; warnings of kubelet: %s", err, warnings(ctx))
	}
	return nil
}

// warnings returns what kubelet complains of in the shop, for whoever asks why a pod did not start.
func warnings(ctx context.Context) string {
	events, err := shell(ctx, "kubectl events -n shop --types Warning")
	switch {
	case err != nil:
		return err.Error()
	case events == "":
		return "none"
	}
	return events
}

// files reads a pod's user name and password, inside the pod.
func files(ctx context.Context, pod string) (facts.Login, error) {
	answer, err := shell(ctx, "kubectl exec -n shop "+pod+" -- sh -c 'cat /db/db-user; echo; cat /db/db-password'")
	if err != nil {
		return facts.Login{}, err
	}
	user, password, _ := strings.Cut(answer, "\n")
	return facts.Login{User: user, Password: password}, nil
}

func (s *story) query(ctx context.Context, text *page.Sheet) error {
	script, err := excerptOf("cart.yaml", "- |")
	if err != nil {
		return err
	}
	_, script, _ = strings.Cut(script, "\n")
	text.Line("what the container does, of " + folder + "cart.yaml")
	text.Quote(script)

	const logs = "kubectl logs -n shop --selector app=cart --prefix --tail=1"
	text.Now("waiting for the pods' first words")
	var (
		said string
		got  map[string]string
	)
	err = until(ctx, 20*time.Second, func(ctx context.Context) (err error) {
		if said, err = shell(ctx, logs); err != nil {
			return err
		}
		got, err = answers(said, s.pods)
		return err
	})
	if err != nil {
		return err
	}
	text.Command(logs)
	text.Quote(said)
	for i, name := range s.pods {
		if want := fmt.Sprintf("%s|%d", s.logins[i].User, facts.Orders); got[name] != want {
			return fmt.Errorf("PostgreSQL answers the pod %s %q, want %q", name, got[name], want)
		}
	}
	text.Proved("Each pod is its own user: PostgreSQL's log and statistics tell the pods apart.")
	return nil
}

// answers reads what each pod wrote from lines such as "[pod/NAME/CONTAINER] TEXT". Each pod must have one line.
func answers(log string, pods []string) (map[string]string, error) {
	said := make(map[string]string)
	for line := range strings.Lines(log) {
		from, text, _ := strings.Cut(strings.TrimSpace(line), "] ")
		parts := strings.Split(from, "/")
		if len(parts) != 3 || parts[0] != "[pod" {
			return nil, fmt.Errorf("the line %q is not of a pod", line)
		}
		said[parts[1]] = text
	}
	for _, pod := range pods {
		if said[pod] == "" {
			return nil, fmt.Errorf("the pod %s has said nothing", pod)
		}
	}
	if len(said) != len(pods) {
		return nil, fmt.Errorf("%d pods have said something, want %d", len(said), len(pods))
	}
	return said, nil
}
