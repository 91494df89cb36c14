package facts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"leasehold/test/integration/bed"
)

// Existing returns a Vault and a PostgreSQL that somebody else started, which the variables of the vault command and of
// psql name: VAULT_ADDR, VAULT_TOKEN (root), VAULT_CACERT; PGHOST, PGPORT and PGPASSWORD of the superuser postgres. They
// can be asked and configured, but not started or stopped. auditFile is the Vault's.
func Existing(auditFile string) (*bed.Vault, *bed.Postgres, error) {
	var missing []error
	for _, name := range []string{"VAULT_ADDR", "VAULT_TOKEN", "PGHOST", "PGPORT", "PGPASSWORD"} {
		if os.Getenv(name) == "" {
			missing = append(missing, fmt.Errorf("the environment variable %s is not set", name))
		}
	}
	if err := errors.Join(missing...); err != nil {
		return nil, nil, err
	}
	client, err := api.NewClient(nil)
	if err != nil {
		return nil, nil, fmt.Errorf("vault client: %w", err)
	}
	vault := &bed.Vault{Address: client.Address(), RootToken: client.Token(), Client: client, AuditFile: auditFile}
	postgres := &bed.Postgres{
		Address:  net.JoinHostPort(os.Getenv("PGHOST"), os.Getenv("PGPORT")),
		Password: os.Getenv("PGPASSWORD"),
	}
	return vault, postgres, nil
}

// VaultVersion returns what Vault says of itself, such as "1.21.0".
func VaultVersion(ctx context.Context, vault *bed.Vault) (string, error) {
	health, err := vault.Client.Sys().HealthWithContext(ctx)
	if err != nil {
		return "", fmt.Errorf("ask Vault for its health: %w", err)
	}
	return health.Version, nil
}

// PostgresVersion returns what PostgreSQL says of itself, such as "15.18".
func PostgresVersion(ctx context.Context, postgres *bed.Postgres) (version string, err error) {
	err = Ask(ctx, postgres, Login{User: "postgres", Password: postgres.Password},
		`SELECT split_part(current_setting('server_version'), ' ', 1)`, &version)
	return version, err
}

// Read reads what Vault has at a path. It is an error if there is nothing.
func Read(ctx context.Context, vault *bed.Vault, path string) (map[string]any, error) {
	answer, err := vault.Client.Logical().ReadWithContext(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	if answer == nil {
		return nil, fmt.Errorf("read %q: nothing there", path)
	}
	return answer.Data, nil
}

// List shows a list as Vault answers it.
func List(value any) string {
	values, _ := value.([]any)
	return strings.TrimSuffix(fmt.Sprintln(values...), "\n")
}

// Seconds shows a number of seconds as Vault answers it.
func Seconds(value any) string {
	d, err := time.ParseDuration(fmt.Sprint(value) + "s")
	if err != nil {
		return fmt.Sprint(value)
	}
	return hours(d)
}

// hours shows whole hours shortly.
func hours(d time.Duration) string { return strings.Replace(d.String(), "h0m0s", "h", 1) }
