package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"leasehold/test/integration/bed"
)

// shared is the world of this test binary; TestMain makes it.
var shared *world

// patience is how long a test waits for something that usually takes milliseconds. The machine may be busy.
const patience = 60 * time.Second

// world is what all tests have in common: one Vault with the story's engines, one PostgreSQL, one signer. Tests may run
// in parallel, so each has a Vault role of its own (see role) and a provider of its own (see startProvider), and looks
// only at what belongs to them.
type world struct {
	bed      *bed.Bed
	vault    *bed.Vault // written with log_raw, so that the canary knows every secret
	postgres *bed.Postgres
	signer   *bed.Signer

	count atomic.Int64 // for unique names

	mu        sync.Mutex
	texts     map[string][]byte             // :: name -> what the product said; the canary searches it for secrets
	drivers   map[*bed.Provider]*bed.Driver // :: provider -> the driver that calls it
	tokenRole map[string]string             // :: accessor -> role that the token's login was for, "" for none
	tokenSeen map[string]time.Time          // :: accessor -> when it was listed first
}

// newWorld starts everything. Whatever happens, close it.
func newWorld(ctx context.Context) (*world, error) {
	b, err := bed.Open()
	if err != nil {
		return nil, err
	}
	w := &world{
		bed:       b,
		texts:     make(map[string][]byte),
		drivers:   make(map[*bed.Provider]*bed.Driver),
		tokenRole: make(map[string]string), tokenSeen: make(map[string]time.Time),
	}
	w.postgres, err = b.StartPostgres(ctx)
	if err == nil {
		w.vault, err = b.StartVault(ctx, bed.VaultOptions{InMemory: true, Audit: true})
	}
	if err == nil {
		w.signer, err = bed.NewSigner(bed.ES256)
	}
	if err == nil {
		err = w.vault.Story(ctx, w.postgres, w.signer, bed.DatabaseRole{TTL: time.Hour})
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return w, nil
}

// unique returns a name that nobody else has, short enough for Vault to keep all of it in a database user's name, and of
// letters and digits only.
func (w *world) unique(prefix string) string {
	return fmt.Sprintf("%s%d", prefix, w.count.Add(1))
}

// record keeps a text of the product for the canary. A name may be used again.
func (w *world) record(name string, text []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, taken := w.texts[name]; taken; _, taken = w.texts[name] {
		name += "+"
	}
	w.texts[name] = text
}

// recorded returns all texts of the product, by name.
func (w *world) recorded() map[string][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.texts)
}

// driver returns the driver that calls the provider. There is one, as on a node.
func (w *world) driver(p *bed.Provider) (*bed.Driver, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := w.drivers[p]; d != nil {
		return d, nil
	}
	d, err := w.bed.NewDriver(p, w.signer)
	if err == nil {
		w.drivers[p] = d
	}
	return d, err
}

// holdings is what a role's logins hold, as Vault and PostgreSQL list it.
type holdings struct {
	tokens []string // accessors
	leases []string
	users  []string // of PostgreSQL
}

func (h holdings) String() string {
	return fmt.Sprintf("tokens %q, leases %q, users %q", h.tokens, h.leases, h.users)
}

// held returns what the logins of a role hold right now.
func (w *world) held(ctx context.Context, role string) (h holdings, err error) {
	if h.leases, err = w.vault.Leases(ctx, "database/creds/"+role); err != nil {
		return h, err
	}
	users, err := w.postgres.Roles(ctx)
	if err != nil {
		return h, err
	}
	for _, user := range users {
		if strings.Contains(user, "-"+role+"-") {
			h.users = append(h.users, user)
		}
	}
	accessors, err := w.vault.Tokens(ctx)
	if err != nil {
		return h, err
	}
	w.mu.Lock()
	for _, accessor := range accessors {
		if _, old := w.tokenSeen[accessor]; !old {
			w.tokenSeen[accessor] = time.Now()
		}
	}
	w.mu.Unlock()
	for _, accessor := range accessors {
		if w.roleOf(ctx, accessor) == role {
			h.tokens = append(h.tokens, accessor)
		}
	}
	return h, nil
}

// tooYoung is how long nobody may ask for a token that is being made: between storing it and storing its lease, Vault takes
// it for one that was left without, and whoever looks it up has it revoked. It takes a login some milliseconds.
const tooYoung = time.Second

// roleOf returns the role that a token was made for. It asks Vault once for each token. One that ends meanwhile has none.
func (w *world) roleOf(ctx context.Context, accessor string) string {
	w.mu.Lock()
	role, known := w.tokenRole[accessor]
	seen := w.tokenSeen[accessor]
	w.mu.Unlock()
	if known {
		return role
	}
	time.Sleep(time.Until(seen.Add(tooYoung)))
	answer, err := w.vault.Client.Auth().Token().LookupAccessorWithContext(ctx, accessor)
	if err != nil {
		return ""
	}
	meta, _ := answer.Data["meta"].(map[string]any)
	role, _ = meta["role"].(string)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokenRole[accessor] = role
	return role
}

// must ends the test when err is not nil.
func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// eventually polls until ready returns nil, and fails the test with its last error when patience ends.
func eventually(t testing.TB, what string, ready func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			last = err // later ones only say that the time is over
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, patience, last)
		case <-tick.C:
		}
	}
}

// role makes a Vault role, of auth/kubernetes, that only this test uses, and a dynamic database role of the same name.
// What r leaves out: the service account apps/db-app is bound to it, and its policy may read everything below kv1/,
// kv/data/ and database/static-creds/, issue certificates, and read database/creds/<role>.
func role(t testing.TB, r bed.Role) string {
	t.Helper()
	name := shared.unique("r")
	if r.ServiceAccounts == nil {
		r.ServiceAccounts = []string{"apps/db-app"}
	}
	if r.Policies == nil {
		rules := bed.MayRead("kv1/*", "kv/data/*", "database/static-creds/*", "pki/issue/*", "database/creds/"+name)
		must(t, "policy", shared.vault.Policy(t.Context(), name, rules))
		r.Policies = []string{name}
	}
	must(t, "role", shared.vault.JWTRole(t.Context(), "kubernetes", name, r))
	must(t, "database role", shared.vault.AddDatabaseRole(t.Context(), "database", name, bed.DatabaseRole{TTL: time.Hour}))
	return name
}

// class returns the parameters of a class.
func class(role, objects string) map[string]string {
	return map[string]string{"roleName": role, "objects": objects}
}

// object is an entry of a class's objects. Without a key the file shows the whole answer.
func object(name, path, key string) string {
	if key == "" {
		return fmt.Sprintf("- {objectName: %q, secretPath: %q}\n", name, path)
	}
	return fmt.Sprintf("- {objectName: %q, secretPath: %q, secretKey: %q}\n", name, path, key)
}

// credentials are objects that show a database user of a role, in two files of one source.
func credentials(role string) string {
	path := "database/creds/" + role
	return object("username", path, "username") + object("password", path, "password")
}

// startTrouble starts a proxy before the shared Vault, for one test.
func startTrouble(t testing.TB) *bed.Trouble {
	t.Helper()
	trouble, err := shared.bed.StartTrouble(shared.vault.Address)
	must(t, "trouble", err)
	return trouble
}

// startProvider starts a provider for one test. What o leaves out: it talks to the shared Vault, and gives up what failed
// Mounts have gained after half a second. At the test's end it is ended, and what it wrote and counted is recorded.
func startProvider(t testing.TB, o bed.ProviderOptions) *bed.Provider {
	t.Helper()
	if o.VaultAddress == "" {
		o.VaultAddress = shared.vault.Address
	}
	o.Args = append([]string{"--abandon-after=500ms"}, o.Args...) // of two flags the later one counts
	p, err := shared.bed.StartProvider(t.Context(), o)
	must(t, "provider", err)
	t.Cleanup(func() {
		stop(t, p)
		log, err := p.Log()
		if err != nil {
			t.Errorf("log of the provider: %v", err)
		}
		shared.record(t.Name()+": log", []byte(log))
		if t.Failed() {
			const most = 8 << 10
			t.Logf("end of the provider's log:\n%s", log[max(0, len(log)-most):])
		}
	})
	return p
}

// stop ends a provider as kubelet does, after recording its metrics. One that has ended already is left alone.
func stop(t testing.TB, p *bed.Provider) {
	t.Helper()
	select {
	case <-p.Ended():
		return
	default:
	}
	metrics(t, p)
	if err := p.Terminate(); err != nil {
		t.Errorf("stop the provider: %v", err)
	}
}

// kill ends a provider without a warning, after recording its metrics.
func kill(t testing.TB, p *bed.Provider) {
	t.Helper()
	metrics(t, p)
	p.Kill()
}

// metrics records the provider's metrics, and what "provider status" says of it.
func metrics(t testing.TB, p *bed.Provider) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience) // a test's own context has ended when it cleans up
	defer cancel()
	text, err := p.Metrics(ctx)
	if err != nil {
		t.Errorf("metrics of the provider: %v", err)
	}
	shared.record(t.Name()+": metrics", []byte(text))
	for _, format := range []string{"table", "json"} {
		status, _ := p.Status(ctx, "-o", format) // a standby has none
		shared.record(t.Name()+": status", []byte(status))
	}
}

// newPod returns a pod that nobody else has, of the service account apps/db-app.
func newPod() bed.Pod {
	n := shared.count.Add(1)
	return bed.Pod{
		Namespace: "apps", Name: fmt.Sprintf("app-%d", n), ServiceAccount: "db-app",
		UID: fmt.Sprintf("%08x-1111-4222-8333-444444444444", n),
	}
}

// newVolume describes a volume of a new pod. Nothing exists before it is mounted.
func newVolume(t testing.TB, p *bed.Provider, parameters map[string]string) *bed.Volume {
	t.Helper()
	return newVolumeOf(t, p, newPod(), "creds", parameters)
}

// newVolumeOf describes a volume of a pod.
func newVolumeOf(t testing.TB, p *bed.Provider, pod bed.Pod, name string, parameters map[string]string) *bed.Volume {
	t.Helper()
	driver, err := shared.driver(p)
	must(t, "driver", err)
	return driver.NewVolume(pod, name, parameters)
}

// mount has the driver mount the volume, and records the error if there is one.
func mount(t testing.TB, v *bed.Volume) (map[string]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // kubelet's
	defer cancel()
	return mountWithin(ctx, t, v)
}

// mountWithin is mount with a context of the test's own. It may be called on any goroutine.
func mountWithin(ctx context.Context, t testing.TB, v *bed.Volume) (map[string]string, error) {
	t.Helper()
	versions, err := v.Mount(ctx)
	if err != nil {
		shared.record(t.Name()+": error", []byte(err.Error()))
	}
	return versions, err
}

// mustMount mounts and returns the object versions.
func mustMount(t testing.TB, v *bed.Volume) map[string]string {
	t.Helper()
	versions, err := mount(t, v)
	must(t, "mount", err)
	return versions
}

// files returns the volume's files as an application reads them.
func files(t testing.TB, v *bed.Volume) map[string]string {
	t.Helper()
	contents, err := v.Files()
	must(t, "files", err)
	texts := make(map[string]string, len(contents))
	for path, text := range contents {
		texts[path] = string(text)
	}
	return texts
}

// logIn logs in to PostgreSQL with the volume's files username and password.
func logIn(t testing.TB, v *bed.Volume) {
	t.Helper()
	f := files(t, v)
	must(t, "log in with the volume's files", shared.postgres.Login(t.Context(), f["username"], f["password"]))
}

// left fails the test unless, in the end, the logins of a role hold nothing: no token, no lease, no database user.
func left(t testing.TB, role string) {
	t.Helper()
	holds(t, role, 0, 0)
}

// holds fails the test unless, in the end, the logins of a role hold just so many tokens and database users. Vault ends
// leases a moment after it said that it would.
func holds(t testing.TB, role string, tokens, users int) {
	t.Helper()
	eventually(t, "what role "+role+" holds", func(ctx context.Context) error {
		h, err := shared.held(ctx, role)
		if err == nil && (len(h.tokens) != tokens || len(h.leases) != users || len(h.users) != users) {
			err = fmt.Errorf("got %v, want %d tokens and %d database users", h, tokens, users)
		}
		return err
	})
}

// wantStatus fails the test unless err is a gRPC status with the code whose message holds all of the parts.
func wantStatus(t testing.TB, err error, code codes.Code, parts ...string) {
	t.Helper()
	if got := status.Code(err); got != code {
		t.Errorf("got code %s (%v), want %s", got, err, code)
	}
	wantError(t, err, parts...)
}

// wantError fails the test unless err's text holds all of the parts.
func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("got no error, want one with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got error %q, want it to say %q", err, part)
		}
	}
}

// write writes a file of a test.
func write(t testing.TB, path, text string) {
	t.Helper()
	must(t, "write", os.WriteFile(path, []byte(text), 0o600))
}
