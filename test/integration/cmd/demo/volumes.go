package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

// volume is that of a pod in the namespace shop.
func (s *story) volume(pod, uid, serviceAccount string, parameters map[string]string) *bed.Volume {
	return s.driver.NewVolume(bed.Pod{Namespace: "shop", Name: pod, UID: uid, ServiceAccount: serviceAccount}, "db", parameters)
}

func (s *story) mount(ctx context.Context, text *page.Sheet) error {
	s.volumes = []*bed.Volume{
		s.volume("cart-0", "6d0ed6a5-5e5c-4c0b-9a53-2f1d6c1e7a10", "cart", s.parameters),
		s.volume("cart-1", "b1f8e0d4-93a7-4e86-8f0c-7f0a4d5b3c21", "cart", s.parameters),
	}
	before, err := s.vault.Tokens(ctx)
	if err != nil {
		return err
	}
	for _, v := range s.volumes {
		text.Now("shop/" + v.Pod.Name)
		start := time.Now()
		if _, err := v.Mount(ctx); err != nil {
			return err
		}
		took := time.Since(start)
		files, err := v.Files()
		if err != nil {
			return err
		}
		text.Gap()
		text.Line(fmt.Sprintf("shop/%s, service account %s, mounted in %s", v.Pod.Name, v.Pod.ServiceAccount, page.Clock(took)))
		if err := showFiles(text, v, files); err != nil {
			return err
		}
		s.logins = append(s.logins, loginOf(files))
	}

	if err := facts.Distinct(s.logins); err != nil {
		return err
	}
	text.Proved("Two pods of one service account, one class: two users, two passwords.")
	after, err := s.vault.Tokens(ctx)
	if err != nil {
		return err
	}
	tokens := len(after) - len(before)
	logins, reads, all := requests(s.proxy, loginPath), requests(s.proxy, facts.CredsPath), requests(s.proxy, "")
	if tokens != 2 || logins != 2 || reads != 2 || all != 4 {
		return fmt.Errorf("two mounts took %d logins, %d reads, %d requests to Vault and left %d tokens, want 2, 2, 4 and 2", logins, reads, all, tokens)
	}
	text.Proved("Each volume took two requests to Vault: one login, which gave it a Vault token of its own, and one read. " +
		"User name and password come from the same read, so they always match.")
	return nil
}

// loginOf reads what the class of the story has the driver write.
func loginOf(files map[string][]byte) facts.Login {
	return facts.Login{User: string(files["db-user"]), Password: string(files["db-password"])}
}

// showFiles shows a volume's files: of the user's name the text, of everything else the length.
func showFiles(text *page.Sheet, v *bed.Volume, files map[string][]byte) error {
	var rows [][]string
	for _, path := range slices.Sorted(maps.Keys(files)) {
		mode, err := v.Mode(path)
		if err != nil {
			return err
		}
		shown := "••••••••"
		if path == "db-user" {
			shown = string(files[path])
		}
		rows = append(rows, []string{"  " + path, mode.String(), fmt.Sprintf("%d bytes", len(files[path])), shown})
	}
	text.Table(rows...)
	return nil
}

func (s *story) query(ctx context.Context, text *page.Sheet) error {
	text.Quote(facts.Question)
	text.Gap()
	var rows [][]string
	for i, v := range s.volumes {
		text.Now("shop/" + v.Pod.Name)
		var (
			user   string
			orders int
		)
		start := time.Now()
		if err := facts.Ask(ctx, s.postgres, s.logins[i], facts.Question, &user, &orders); err != nil {
			return err
		}
		if user != s.logins[i].User || orders != facts.Orders {
			return fmt.Errorf("PostgreSQL answers %s and %d, want %s and %d", user, orders, s.logins[i].User, facts.Orders)
		}
		rows = append(rows, []string{"shop/" + v.Pod.Name, user, fmt.Sprint(orders), page.Clock(time.Since(start))})
	}
	text.Table(rows...)
	text.Proved("Each query ran as its own pod's user: PostgreSQL's log and statistics tell the pods apart.")
	return nil
}

func (s *story) compare(ctx context.Context, text *page.Sheet) error {
	return s.sides().Compare(ctx, text, s.logins)
}

// sides are the two that know of the pods' users.
func (s *story) sides() facts.Sides {
	return facts.Sides{Postgres: s.postgres, Vault: s.vault}
}
