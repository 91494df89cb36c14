package bed_test

import (
	"strings"
	"testing"
	"time"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/bed/bedtest"
)

// TestProvider has all parts meet: the provider's process, Vault through a proxy, PostgreSQL, the driver's call.
func TestProvider(t *testing.T) {
	b := bedtest.Open(t)
	ctx := t.Context()
	v := startVault(t, b, bed.VaultOptions{})
	postgres, err := b.StartPostgres(ctx)
	check(t, "postgresql", err)
	signer, err := bed.NewSigner(bed.ES256)
	check(t, "signer", err)
	check(t, "story", v.Story(ctx, postgres, signer, bed.DatabaseRole{TTL: time.Hour}))
	trouble, err := b.StartTrouble(v.Address)
	check(t, "trouble", err)
	provider, err := b.StartProvider(ctx, bed.ProviderOptions{VaultAddress: trouble.Address})
	check(t, "provider", err)
	driver, err := b.NewDriver(provider, signer)
	check(t, "driver", err)

	volume := driver.NewVolume(pod, "creds", map[string]string{"roleName": "db-app", "objects": `
- {objectName: username, secretPath: database/creds/db-app, secretKey: username}
- {objectName: password, secretPath: database/creds/db-app, secretKey: password}
`})
	_, err = volume.Mount(ctx)
	check(t, "mount", err)
	files, err := volume.Files()
	check(t, "files", err)
	check(t, "log in", postgres.Login(ctx, string(files["username"]), string(files["password"])))
	if got := trouble.Count("POST", "auth/kubernetes/login") + trouble.Count("PUT", "auth/kubernetes/login"); got != 1 {
		t.Errorf("logins: got %d, want 1 of %v", got, trouble.Requests())
	}
	if got := trouble.Count("GET", "database/creds/db-app"); got != 1 {
		t.Errorf("reads: got %d, want 1 of %v", got, trouble.Requests())
	}
	metrics, err := provider.Metrics(ctx)
	check(t, "metrics", err)
	if !strings.Contains(metrics, "leasehold_") {
		t.Errorf("metrics: got %q, want some of leasehold", metrics)
	}
	check(t, "terminate", provider.Terminate())
	log, err := provider.Log()
	check(t, "log", err)
	if !strings.Contains(log, provider.Socket()) {
		t.Errorf("log: got %q, want it to name the socket", log)
	}

	second, err := b.StartProvider(ctx, bed.ProviderOptions{Dir: provider.Dir})
	check(t, "second provider", err)
	second.Kill()
	<-second.Ended()
}

func TestProviderSaysWhyItDidNotStart(t *testing.T) {
	_, err := bedtest.Open(t).StartProvider(t.Context(), bed.ProviderOptions{Args: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("got error %v, want one with the provider's last words", err)
	}
}
