package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

// refused mounts a volume that must be refused with a code, and shows why it was. It returns the message.
func (s *story) refused(ctx context.Context, text *page.Sheet, v *bed.Volume, code codes.Code) (string, error) {
	_, err := v.Mount(ctx)
	if err == nil {
		return "", fmt.Errorf("shop/%s was given files, want it refused", v.Pod.Name)
	}
	answer := status.Convert(err)
	if answer.Code() != code {
		return "", fmt.Errorf("shop/%s was refused with %s, want %s: %s", v.Pod.Name, answer.Code(), code, answer.Message())
	}
	text.Complaint(fmt.Sprintf("%s: %s", answer.Code(), answer.Message()))
	return answer.Message(), s.sides().OnlyOurs(ctx, s.logins)
}

func (s *story) mistake(ctx context.Context, text *page.Sheet) error {
	mistakes := []edit{
		{"        secretKey: username", "        secretkye: username"},
		{"        filePermission: 0440", "        filePermission: 0999"},
	}
	broken, err := apply(classYAML, mistakes...)
	if err != nil {
		return err
	}
	class, err := parseClass(broken)
	if err != nil {
		return err
	}
	for _, m := range mistakes {
		text.Quote("- " + strings.TrimSpace(m.from) + "\n+ " + strings.TrimSpace(m.to))
	}
	before := requests(s.proxy, "")
	v := s.volume("cart-2", "2c9a7d3e-0b64-4f1e-8d55-91b3e7f4a632", "cart", class.Spec.Parameters)
	message, err := s.refused(ctx, text, v, codes.InvalidArgument)
	if err != nil {
		return err
	}
	if err := facts.Mentions(message, "shop/cart-2", `"secretkye"`, "did you mean secretKey", `"0999"`); err != nil {
		return err
	}
	if n := requests(s.proxy, "") - before; n != 0 {
		return fmt.Errorf("the broken class made %d requests to Vault, want none", n)
	}
	text.Proved("Vault was not asked.")
	return nil
}

func (s *story) intrude(ctx context.Context, text *page.Sheet) error {
	before, reads := requests(s.proxy, loginPath), requests(s.proxy, facts.CredsPath)
	v := s.volume("report-0", "e47b5f19-6a28-4d3c-b0f7-58c2d9a1e043", "report", s.parameters)
	message, err := s.refused(ctx, text, v, codes.PermissionDenied)
	if err != nil {
		return err
	}
	if err := facts.Mentions(message, "shop/report-0", "shop/report ", "sub", "db-app"); err != nil {
		return err
	}
	if requests(s.proxy, loginPath) != before+1 || requests(s.proxy, facts.CredsPath) != reads {
		return errors.New("the pod that may not was not refused at its first login")
	}
	text.Proved("Vault itself refused the login, and its reason is in the message. No user was made.")
	return nil
}
