package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"leasehold/test/integration/facts"
	"leasehold/test/integration/page"
)

func (s *story) look(ctx context.Context, text *page.Sheet) error {
	if err := show(ctx, text, "kubectl get nodes"); err != nil {
		return err
	}
	driver, err := s.driver(ctx)
	if err != nil {
		return err
	}
	vault, err := facts.VaultVersion(ctx, s.vault)
	if err != nil {
		return err
	}
	postgres, err := facts.PostgresVersion(ctx, s.postgres)
	if err != nil {
		return err
	}
	text.Table(
		driver,
		[]string{"Vault " + vault, s.vault.Address},
		[]string{"PostgreSQL " + postgres, s.postgres.Address},
	)
	return nil
}

// driver returns the version of the Secrets Store CSI driver and what it does for Leasehold.
func (s *story) driver(ctx context.Context) ([]string, error) {
	type daemonSet struct {
		Spec struct {
			Template struct {
				Spec struct {
					Containers []struct{ Image string }
				}
			}
		}
		Status struct{ DesiredNumberScheduled, NumberReady int }
	}
	sets, err := items[daemonSet](ctx, "kubectl get daemonsets -n kube-system --selector app=secrets-store-csi-driver")
	if err != nil {
		return nil, err
	}
	audiences, err := shell(ctx, "kubectl get csidriver secrets-store.csi.k8s.io --output=jsonpath='{.spec.tokenRequests[*].audience}'")
	if err != nil {
		return nil, err
	}
	if !strings.Contains(" "+audiences+" ", " vault ") {
		return nil, fmt.Errorf("the driver has kubelet make tokens for the audiences %q, want vault", audiences)
	}
	for _, set := range sets {
		if set.Status.NumberReady == 0 || set.Status.NumberReady != set.Status.DesiredNumberScheduled {
			return nil, fmt.Errorf("the driver is ready on %d of %d nodes", set.Status.NumberReady, set.Status.DesiredNumberScheduled)
		}
		for _, container := range set.Spec.Template.Spec.Containers {
			if _, version, is := strings.Cut(container.Image, "csi-secrets-store/driver:"); is {
				return []string{"CSI driver " + version, "kubelet makes a token for each pod, of audience " + audiences}, nil
			}
		}
	}
	return nil, errors.New("the Secrets Store CSI driver is not in the namespace kube-system")
}

func (s *story) configure(ctx context.Context, text *page.Sheet) error {
	if err := show(ctx, text, "kubectl apply -f "+folder+"accounts.yaml"); err != nil {
		return err
	}
	for _, write := range []func(context.Context) error{
		func(ctx context.Context) error { return facts.Stock(ctx, s.postgres) },
		s.enableDatabase,
		func(ctx context.Context) error { return facts.Allow(ctx, s.vault) },
		s.enableKubernetes,
		func(ctx context.Context) error {
			return s.vault.Write(ctx, facts.RolePath, map[string]any{
				"bound_service_account_names":      []string{"cart"},
				"bound_service_account_namespaces": []string{"shop"},
				"audience":                         "vault",
				"token_policies":                   []string{facts.Policy},
				"token_ttl":                        int(facts.Life.Seconds()),
			})
		},
	} {
		if err := write(ctx); err != nil {
			return err
		}
	}
	text.Gap()
	text.Line("auth/kubernetes/config")
	text.Line("  whom Vault asks    the API server, " + s.kubernetes)
	return facts.ShowRole(ctx, text, s.vault, func(role map[string]any) [][]string {
		return [][]string{
			{"  who may log in", "service account " + facts.List(role["bound_service_account_names"]) +
				" of namespace " + facts.List(role["bound_service_account_namespaces"])},
			{"  with a token for", fmt.Sprint(role["audience"])},
		}
	})
}

// enableDatabase is for a Vault that may have the engine from an earlier demo.
func (s *story) enableDatabase(ctx context.Context) error {
	mounts, err := s.vault.Client.Sys().ListMountsWithContext(ctx)
	if err != nil {
		return fmt.Errorf("list what is mounted in Vault: %w", err)
	}
	if mounts["database/"] != nil {
		configured, err := s.vault.Client.Logical().ReadWithContext(ctx, "database/config/postgres")
		if err != nil {
			return fmt.Errorf("read %q: %w", "database/config/postgres", err)
		}
		if configured != nil {
			return nil
		}
		// An earlier demo was interrupted in between.
		if err := s.vault.Client.Sys().UnmountWithContext(ctx, "database"); err != nil {
			return fmt.Errorf("unmount %q: %w", "database", err)
		}
	}
	return s.vault.EnableDatabase(ctx, "database", s.postgres)
}

// enableKubernetes lets pods log in to Vault, which has every token reviewed by the API server.
func (s *story) enableKubernetes(ctx context.Context) error {
	methods, err := s.vault.Client.Sys().ListAuthWithContext(ctx)
	if err != nil {
		return fmt.Errorf("list the auth methods of Vault: %w", err)
	}
	if methods["kubernetes/"] == nil {
		if err := s.vault.Write(ctx, "sys/auth/kubernetes", map[string]any{"type": "kubernetes"}); err != nil {
			return err
		}
	}
	token, err := shell(ctx, "kubectl create token vault -n vault --duration 24h")
	if err != nil {
		return err
	}
	s.reviewer = strings.TrimSpace(token)
	authority, err := shell(ctx, `kubectl get configmap kube-root-ca.crt -n default --output=jsonpath='{.data.ca\.crt}'`)
	if err != nil {
		return err
	}
	return s.vault.Write(ctx, "auth/kubernetes/config", map[string]any{
		"kubernetes_host": s.kubernetes, "kubernetes_ca_cert": authority, "token_reviewer_jwt": s.reviewer,
	})
}

func (s *story) install(ctx context.Context, text *page.Sheet) error {
	for _, command := range []string{
		"kubectl create configmap vault-ca -n leasehold-system --from-file=ca.crt=$VAULT_CACERT \\\n" +
			"  --dry-run=client --output=yaml | kubectl apply -f -",
		"helm upgrade --install leasehold " + chart + " -n leasehold-system \\\n" +
			"  --set vault.address=$VAULT_ADDR --set vault.tls.caConfigMap.name=vault-ca \\\n" +
			"  --set webhook.enabled=true --wait",
		"kubectl rollout status daemonset/leasehold-provider -n leasehold-system --timeout=60s",
		"kubectl rollout status deployment/leasehold-webhook -n leasehold-system --timeout=60s",
	} {
		if err := show(ctx, text, command); err != nil {
			return err
		}
	}
	return nil
}
