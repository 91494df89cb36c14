package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"leasehold/test/integration/bed"
)

// volume is that of a pod in the namespace shop.
func (s *story) volume(pod, uid, serviceAccount string, parameters map[string]string) *bed.Volume {
	return s.driver.NewVolume(bed.Pod{Namespace: "shop", Name: pod, UID: uid, ServiceAccount: serviceAccount}, "db", parameters)
}

func (s *story) mount(ctx context.Context, text *sheet) error {
	s.volumes = []*bed.Volume{
		s.volume("cart-0", "6d0ed6a5-5e5c-4c0b-9a53-2f1d6c1e7a10", "cart", s.parameters),
		s.volume("cart-1", "b1f8e0d4-93a7-4e86-8f0c-7f0a4d5b3c21", "cart", s.parameters),
	}
	before, err := s.vault.Tokens(ctx)
	if err != nil {
		return err
	}
	for _, v := range s.volumes {
		text.now("shop/" + v.Pod.Name)
		start := time.Now()
		if _, err := v.Mount(ctx); err != nil {
			return err
		}
		took := time.Since(start)
		files, err := v.Files()
		if err != nil {
			return err
		}
		text.gap()
		text.line(fmt.Sprintf("shop/%s, service account %s, mounted in %s", v.Pod.Name, v.Pod.ServiceAccount, clock(took)))
		if err := showFiles(text, v, files); err != nil {
			return err
		}
		s.logins = append(s.logins, login{string(files["db-user"]), string(files["db-password"])})
	}

	if err := distinct(s.logins); err != nil {
		return err
	}
	text.proved("Two pods of one service account, one class: two users, two passwords.")
	after, err := s.vault.Tokens(ctx)
	if err != nil {
		return err
	}
	tokens := len(after) - len(before)
	logins, reads, all := requests(s.proxy, loginPath), requests(s.proxy, credsPath), requests(s.proxy, "")
	if tokens != 2 || logins != 2 || reads != 2 || all != 4 {
		return fmt.Errorf("two mounts took %d logins, %d reads, %d requests to Vault and left %d tokens, want 2, 2, 4 and 2", logins, reads, all, tokens)
	}
	text.proved("Each volume took two requests to Vault: one login, which gave it a Vault token of its own, and one read. " +
		"User name and password come from the same read, so they always match.")
	return nil
}

// showFiles shows a volume's files: of the user's name the text, of everything else the length.
func showFiles(text *sheet, v *bed.Volume, files map[string][]byte) error {
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
	text.table(rows...)
	return nil
}

func (s *story) query(ctx context.Context, text *sheet) error {
	text.quote(question)
	text.gap()
	var rows [][]string
	for i, v := range s.volumes {
		text.now("shop/" + v.Pod.Name)
		var (
			user   string
			orders int
		)
		start := time.Now()
		if err := ask(ctx, s.postgres, s.logins[i], question, &user, &orders); err != nil {
			return err
		}
		if user != s.logins[i].user || orders != 3 {
			return fmt.Errorf("PostgreSQL answers %s and %d, want %s and 3", user, orders, s.logins[i].user)
		}
		rows = append(rows, []string{"shop/" + v.Pod.Name, user, fmt.Sprint(orders), clock(time.Since(start))})
	}
	text.table(rows...)
	text.proved("Each query ran as its own pod's user: PostgreSQL's log and statistics tell the pods apart.")
	return nil
}

func (s *story) compare(ctx context.Context, text *sheet) error {
	made, err := users(ctx, s.postgres)
	if err != nil {
		return err
	}
	held, err := leases(ctx, s.vault, credsPath)
	if err != nil {
		return err
	}
	rows := [][]string{{"PostgreSQL, pg_roles", "valid until (UTC)"}}
	for _, user := range made {
		rows = append(rows, []string{"  " + user.name, user.at.UTC().Format(time.DateTime)})
	}
	rows = append(rows, []string{"Vault, sys/leases", "ends (UTC)"})
	for _, lease := range held {
		rows = append(rows, []string{"  " + lease.name, lease.at.UTC().Format(time.DateTime)})
	}
	text.table(rows...)
	if err := s.onlyOurs(made); err != nil {
		return err
	}
	if len(held) != len(made) {
		return fmt.Errorf("there are %d leases for %d users", len(held), len(made))
	}
	for _, e := range slices.Concat(made, held) {
		if left := time.Until(e.at); left < life/2 || left > life+time.Minute {
			return fmt.Errorf("%s ends in %s, want about %s", e.name, left.Round(time.Second), life)
		}
	}
	text.proved("One user and one lease for each pod, and none besides. Within the hour they are gone.")
	return nil
}

// onlyOurs tells whether the users that Vault made are those of the two volumes.
func (s *story) onlyOurs(made []ending) error {
	want := make([]string, len(s.logins))
	for i, l := range s.logins {
		want[i] = l.user
	}
	return exactly("users of PostgreSQL that Vault made", names(made), want)
}
