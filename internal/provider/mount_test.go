package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"leasehold/internal/client"
	"leasehold/internal/client/vaulttest"
	"leasehold/internal/lease"
	"leasehold/internal/spec"
)

const (
	userAndPassword = `
- objectName: user
  secretPath: database/creds/app
  secretKey: username
- objectName: password
  secretPath: database/creds/app
  secretKey: password
`
	readUser = "database/creds/app"
	login    = "auth/kubernetes/login"
	patience = 20 * time.Second // for what must happen; nothing waits so long when it does
)

func TestMountIsAnsweredFromMemoryAgain(t *testing.T) {
	b := newBench(t)
	pod := b.pod("app-0")
	first := pod.mustMount(t, userAndPassword)
	requests := b.vault.Requests()
	if want := []string{"POST " + login, "GET " + readUser}; !slices.Equal(requests, want) {
		t.Fatalf("the first Mount asked %q, want %q", requests, want)
	}
	for range 100 {
		again := pod.mustMount(t, userAndPassword)
		if !equal(first, again) {
			t.Fatal("the answer changed though nothing did")
		}
	}
	if now := b.vault.Requests(); len(now) != len(requests) {
		t.Errorf("polls asked Vault for %q, want nothing", now[len(requests):])
	}
	if users := b.vault.Users(); len(users) != 1 || users[0] != content(first, "user") {
		t.Errorf("users %q, want just the one in the volume, %q", users, content(first, "user"))
	}
}

func TestVolumesAreApart(t *testing.T) {
	b := newBench(t)
	one, other := b.pod("app-0"), b.pod("app-1")
	second := one // a second volume of the same pod
	second.target = b.target(one.uid, "second")
	seen := map[string]bool{}
	for _, p := range []pod{one, other, second} {
		response := p.mustMount(t, userAndPassword)
		seen[content(response, "user")] = true
		for _, v := range response.GetObjectVersion() {
			seen[v.GetVersion()] = true
		}
	}
	if len(seen) != 3*3 {
		t.Errorf("%d different users and versions, want 9: volumes share something", len(seen))
	}
	if tokens := b.vault.Tokens(); len(tokens) != 3 {
		t.Errorf("%d tokens, want one a volume", len(tokens))
	}
}

func TestConcurrentMountsOfOneVolumeLogInOnce(t *testing.T) {
	b := newBench(t)
	pod := b.pod("app-0")
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() { pod.mustMount(t, userAndPassword) })
	}
	group.Wait()
	if logins, users := b.vault.Count("POST", login), b.vault.Count("GET", readUser); logins != 1 || users != 1 {
		t.Errorf("%d logins and %d users, want 1 and 1", logins, users)
	}
}

func TestCancelledMountIsContinuedByTheNext(t *testing.T) {
	for _, held := range []string{"POST " + login, "GET " + readUser} {
		t.Run(held, func(t *testing.T) {
			b := newBench(t)
			pod := b.pod("app-0")
			arrived, release := b.hold(held)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := pod.mount(ctx, userAndPassword)
				done <- err
			}()
			<-arrived
			cancel()
			if code := status.Code(<-done); code != codes.Canceled {
				t.Fatalf("the cancelled call ended with %v, want Canceled", code)
			}
			release()
			pod.mustMount(t, userAndPassword)
			if logins, users := b.vault.Count("POST", login), b.vault.Count("GET", readUser); logins != 1 || users != 1 {
				t.Errorf("%d logins and %d users, want 1 and 1", logins, users)
			}
		})
	}
}

func TestHangingVolumeHoldsUpNoOther(t *testing.T) {
	b := newBench(t)
	slow, quick := b.pod("app-0"), b.pod("app-1")
	quick.mustMount(t, userAndPassword)
	for _, held := range []string{"POST " + login, "GET " + readUser} {
		arrived, release := b.hold(held)
		done := make(chan error, 1)
		go func() {
			_, err := slow.mount(t.Context(), userAndPassword)
			done <- err
		}()
		<-arrived
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if _, err := quick.mount(ctx, userAndPassword); err != nil {
			t.Errorf("while another volume's %s hangs: %v", held, err)
		}
		cancel()
		release()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		slow.uid, slow.target = "uid-next", b.target("uid-next", "secrets")
	}
}

func TestFailedMountIsKeptAndThenGivenBack(t *testing.T) {
	b := newBench(t)
	pod := b.pod("app-0")
	twoSources := userAndPassword + "- {objectName: more, secretPath: kv/forbidden/thing, secretKey: x}\n"
	b.vault.Write("sys/policies/acl/app", vaulttest.Data{"policy": `path "database/*" { capabilities = ["read"] }`})
	for range 3 { // kubelet tries again
		_, err := pod.mount(t.Context(), twoSources)
		if code := status.Code(err); code != codes.PermissionDenied {
			t.Fatalf("got %v, want PermissionDenied", err)
		}
	}
	if logins, users := b.vault.Count("POST", login), b.vault.Count("GET", readUser); logins != 1 || users != 1 {
		t.Errorf("after three tries %d logins and %d users, want 1 and 1", logins, users)
	}
	if outcome := b.released(t); outcome != "revoked" {
		t.Errorf("given back: %q, want revoked", outcome)
	}
	if leases, tokens := b.vault.Leases(), b.vault.Tokens(); len(leases)+len(tokens) != 0 {
		t.Errorf("left in Vault: leases %q and %d tokens, want nothing", leases, len(tokens))
	}
}

func TestMountedVolumeIsNotGivenUp(t *testing.T) {
	b := newBench(t)
	good, bad := b.pod("app-0"), b.pod("app-1")
	good.mustMount(t, userAndPassword)
	if _, err := bad.mount(t.Context(), "- {objectName: x, secretPath: kv/none, secretKey: x}"); err == nil {
		t.Fatal("a missing secret was mounted")
	}
	b.released(t) // the other one's
	if tokens := b.vault.Tokens(); len(tokens) != 1 {
		t.Errorf("%d tokens are left, want the mounted volume's", len(tokens))
	}
	good.mustMount(t, userAndPassword)
	if n := b.vault.Count("GET", readUser); n != 1 {
		t.Errorf("%d users were made, want 1", n)
	}
}

// An answer that is lost may have made a user. It hangs on the token, so the token goes.
func TestLostAnswerCostsTheToken(t *testing.T) {
	b := newBench(t)
	pod := b.pod("app-0")
	var once sync.Once
	b.vault.Intercept(func(w http.ResponseWriter, r *http.Request) (answered bool) {
		if strings.HasSuffix(r.URL.Path, readUser) {
			once.Do(func() {
				answered = true
				b.vault.Intercept(nil)
				lost := &discardWriter{header: http.Header{}}
				b.vault.ServeHTTP(lost, r) // Vault makes the user ...
				hijack(w)                  // ... and nobody hears of it
			})
		}
		return answered
	})
	_, err := pod.mount(t.Context(), userAndPassword)
	if code := status.Code(err); code != codes.Internal {
		t.Fatalf("got %v, want Internal", err)
	}
	if users := b.vault.Users(); len(users) != 1 {
		t.Fatalf("users %q, want the one whose answer was lost", users)
	}
	mounted := pod.mustMount(t, userAndPassword)
	b.released(t)
	if users := b.vault.Users(); len(users) != 1 || users[0] != content(mounted, "user") {
		t.Errorf("users %q, want the mounted one alone, %q", users, content(mounted, "user"))
	}
	if tokens := b.vault.Tokens(); len(tokens) != 1 {
		t.Errorf("%d tokens, want 1", len(tokens))
	}
}

func TestRevokedTokenIsReplaced(t *testing.T) {
	b := newBench(t)
	pod := b.pod("app-0")
	// The first try leaves a token without a grant; then somebody revokes it.
	objects := "- {objectName: x, secretPath: kv/later, secretKey: x}"
	if _, err := pod.mount(t.Context(), objects); status.Code(err) != codes.NotFound {
		t.Fatalf("got %v, want NotFound", err)
	}
	revoke(t, b.vault.Address(), b.vault.Tokens()[0])
	b.vault.Write("kv/later", vaulttest.Data{"x": "1"})
	if _, err := pod.mount(t.Context(), objects); status.Code(err) != codes.Internal {
		t.Fatalf("got %v, want Internal", err)
	}
	pod.mustMount(t, objects)
}

func TestChangedRoleLogsInAnew(t *testing.T) {
	b := newBench(t)
	b.vault.Write("auth/kubernetes/role/other", vaulttest.Data{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}, "token_policies": []string{"app"},
	})
	pod := b.pod("app-0")
	first := pod.mustMount(t, userAndPassword)
	pod.parameters = map[string]string{"roleName": "other"}
	second := pod.mustMount(t, userAndPassword)
	if content(first, "user") == content(second, "user") {
		t.Error("the user stayed though the Vault role changed")
	}
	if v, w := userVersion(first), userVersion(second); v == w {
		t.Errorf("the version stayed %q though the bytes changed", v)
	}
	// Readers may still hold the old bytes: what they were made of lives on for a grace.
	if tokens := b.vault.Tokens(); len(tokens) != 2 {
		t.Errorf("%d tokens, want the old one to live on for a grace", len(tokens))
	}
}

func TestAddedObjectKeepsTheOthers(t *testing.T) {
	b := newBench(t)
	pod := b.pod("app-0")
	first := pod.mustMount(t, userAndPassword)
	second := pod.mustMount(t, userAndPassword+"- {objectName: kv, secretPath: kv/app, secretKey: username}\n")
	if content(first, "user") != content(second, "user") || userVersion(first) != userVersion(second) {
		t.Error("the user changed because an object was added")
	}
	if got := content(second, "kv"); got != "app" {
		t.Errorf("the added file holds %q, want \"app\"", got)
	}
}

func TestFailuresHaveFinalCodesAndSayWhatHelps(t *testing.T) {
	objects := func(path string) string { return "- {objectName: x, secretPath: " + path + ", secretKey: x}" }
	answer := func(code int, body string) func(*bench) {
		return func(b *bench) {
			b.vault.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/login") {
					return false
				}
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(code)
				_, _ = w.Write([]byte(body))
				return true
			})
		}
	}
	for name, row := range map[string]struct {
		prepare func(*bench)
		objects string
		change  func(*pod)
		code    codes.Code
		says    []string
	}{
		"unbound service account": {
			change: func(p *pod) { p.serviceAccount = "stranger" }, objects: objects("kv/app"),
			code: codes.PermissionDenied, says: []string{`"auth/kubernetes/login"`, `role "app"`, "shop/stranger", `audience "vault"`},
		},
		"unknown role": {
			change: func(p *pod) { p.parameters = map[string]string{"roleName": "none"} }, objects: objects("kv/app"),
			code: codes.PermissionDenied, says: []string{`role "none" could not be found`},
		},
		"policy says no": {
			objects: objects("sys/mounts"),
			code:    codes.PermissionDenied, says: []string{`object "x"`, `"sys/mounts"`, `Vault role "app" must allow "read"`},
		},
		"missing secret":      {objects: objects("kv/none"), code: codes.NotFound, says: []string{`"kv/none"`, "check secretPath"}},
		"missing key":         {objects: objects("kv/app"), code: codes.FailedPrecondition, says: []string{`no key "x"`, `"password"`}},
		"sealed":              {prepare: func(b *bench) { b.vault.Seal(true) }, objects: objects("kv/app"), code: codes.Internal, says: []string{"sealed", "starts by itself"}},
		"down":                {prepare: func(b *bench) { b.vault.Close() }, objects: objects("kv/app"), code: codes.Internal, says: []string{"connection refused", "starts by itself"}},
		"rate limited":        {prepare: answer(429, `{"errors":["request path rate limit quota exceeded"]}`), objects: objects("kv/app"), code: codes.Internal, says: []string{"429", "quota"}},
		"failing":             {prepare: answer(500, `{"errors":["no disk"]}`), objects: objects("kv/app"), code: codes.Internal, says: []string{"no disk"}},
		"bad gateway":         {prepare: answer(502, `<html>`), objects: objects("kv/app"), code: codes.Internal},
		"nonsense":            {prepare: answer(200, `<html>`), objects: objects("kv/app"), code: codes.Internal},
		"bad arguments":       {prepare: answer(400, `{"errors":["no such thing"]}`), objects: objects("kv/app"), code: codes.FailedPrecondition, says: []string{"no such thing"}},
		"broken class":        {objects: "- {objectName: ../x, secretPath: kv/app}", code: codes.InvalidArgument, says: []string{"../x"}},
		"several at once":     {objects: objects("kv/none") + "\n- {objectName: y, secretPath: sys/mounts}", code: codes.NotFound, says: []string{`"kv/none"`, `"sys/mounts"`}},
		"without a namespace": {change: func(p *pod) { p.namespace = "" }, objects: objects("kv/app"), code: codes.InvalidArgument, says: []string{"pod.namespace"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if row.prepare != nil {
				row.prepare(b)
			}
			p := b.pod("app-0")
			if row.change != nil {
				row.change(&p)
			}
			_, err := p.mount(t.Context(), row.objects)
			if code := status.Code(err); code != row.code {
				t.Errorf("code %v, want %v: %v", code, row.code, err)
			}
			for _, text := range row.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("message %q lacks %q", err, text)
				}
			}
			if !strings.Contains(err.Error(), "/app-0") {
				t.Errorf("message %q does not name the pod", err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("message %q has more than one line", err)
			}
		})
	}
}

func TestSlowVaultFailsInTimeAndIsFoundLater(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MountTimeout = 50 * time.Millisecond })
	pod := b.pod("app-0")
	_, release := b.hold("GET " + readUser)
	_, err := pod.mount(t.Context(), userAndPassword)
	if code := status.Code(err); code != codes.Internal {
		t.Fatalf("got %v, want Internal: kubelet takes its kin as maybe mounted", err)
	}
	if !strings.Contains(err.Error(), `read "`+readUser+`": no answer within 50ms`) {
		t.Errorf("message %q does not say what was waited for and how long", err)
	}
	release()
	b.config.MountTimeout = patience
	b.restart(t)
	pod.mustMount(t, userAndPassword)
	if n := b.vault.Count("GET", readUser); n != 1 {
		t.Errorf("%d users were made, want 1", n)
	}
}

// The connection of a call must not be cut: the driver would see Unavailable, which kubelet takes as maybe mounted.
func TestEndOfTheProviderIsAFinalAnswer(t *testing.T) {
	for _, held := range []string{"POST " + login, "GET " + readUser} {
		t.Run(held, func(t *testing.T) {
			b := newBench(t, func(c *Config) { c.StopTimeout = 10 * time.Millisecond })
			arrived, release := b.hold(held)
			done := make(chan error, 1)
			go func() {
				_, err := b.pod("app-0").mount(t.Context(), userAndPassword)
				done <- err
			}()
			<-arrived
			go b.end()
			err := <-done
			if code := status.Code(err); code != codes.Internal || !strings.Contains(err.Error(), "the provider is ending") {
				t.Errorf("got %v, want Internal, and why", err)
			}
			release()
		})
	}
}

func TestManyFailuresAreCounted(t *testing.T) {
	b := newBench(t)
	var objects strings.Builder
	for i := range 50 {
		fmt.Fprintf(&objects, "- {objectName: o%d, secretPath: kv/none%d, secretKey: x}\n", i, i)
	}
	_, err := b.pod("app-0").mount(t.Context(), objects.String())
	if status.Code(err) != codes.NotFound || len(err.Error()) > 8<<10 || !strings.Contains(err.Error(), "and 38 more failures") {
		t.Errorf("got %d bytes: %v", len(err.Error()), err)
	}
}

func TestPanicFailsItsCallAlone(t *testing.T) {
	b := newBench(t)
	server := NewServer(b.config)
	info := &grpc.UnaryServerInfo{FullMethod: v1alpha1.CSIDriverProvider_Mount_FullMethodName}
	_, err := server.intercept(t.Context(), nil, info, func(context.Context, any) (any, error) { panic("hvs.secret") })
	if code := status.Code(err); code != codes.Internal || strings.Contains(err.Error(), "hvs.") {
		t.Errorf("got %v, want Internal without the panic's value", err)
	}
	if strings.Contains(b.logs.String(), "hvs.") {
		t.Error("the panic's value was logged")
	}
}

// Pods outlive the provider, and what failed Mounts have gained is written down for the next one.
func TestEndGivesNothingBack(t *testing.T) {
	b := newBench(t)
	good, bad := b.pod("app-0"), b.pod("app-1")
	good.mustMount(t, userAndPassword)
	arrived, release := b.hold("GET " + readUser)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = bad.mount(ctx, userAndPassword)
	}()
	<-arrived
	cancel()
	<-done
	ended := b.end()
	release() // the user is made when the provider is already ending
	<-ended
	if users := b.vault.Users(); len(users) != 2 {
		t.Errorf("users %q, want the mounted volume's and the one that was on its way", users)
	}
	if tokens := b.vault.Tokens(); len(tokens) != 2 {
		t.Errorf("%d tokens, want both", len(tokens))
	}
}

// bench is a server with everything below it, a fake Vault, and a driver's connection.
type bench struct {
	t       *testing.T
	vault   *vaulttest.Server
	config  Config
	logs    *lockedBuffer
	dir     string
	outcome chan string
	changed chan string // outcomes of the keeper's replacements
	driver  v1alpha1.CSIDriverProviderClient
	stop    func() // the server
	end     func() <-chan struct{}
}

func newBench(t *testing.T, change ...func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, vault: vaulttest.New(t), logs: &lockedBuffer{}, dir: t.TempDir(), outcome: make(chan string, 100), changed: make(chan string, 100)}
	log := slog.New(slog.NewTextHandler(b.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	pool, err := client.NewPool(client.Config{Timeout: patience, MaxInFlight: 32, MaxTransports: 8, MaxAnswer: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	keeper := lease.NewKeeper(lease.Config{
		Pool: pool, AbandonAfter: 200 * time.Millisecond, SettleTimeout: patience, Publishes: true, Log: log,
		Stale: func() {}, FromMemory: func() {}, Unrevocable: func() {}, JournalFailed: func() {},
		Released: func(outcome string) { b.outcome <- outcome }, Renewed: func(_, _ string) {},
		Replaced: func(outcome string) { b.changed <- outcome },
	})
	b.config = Config{
		Keeper:       keeper,
		Publisher:    NewPublisher(filepath.Join(b.dir, "pods")), // of pods that are no tmpfs, for the most part
		Operator:     spec.Operator{Vault: b.vault.Vault("")},
		MountTimeout: patience, StopTimeout: patience, Version: "test", Log: log,
		Mounted: func(string, time.Duration) {},
	}
	for _, f := range change {
		f(&b.config)
	}
	keeping, stopKeeping := context.WithCancel(context.Background())
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		keeper.Run(keeping, NewServer(b.config).Refill)
	}()
	b.restart(t)
	b.end = func() <-chan struct{} {
		b.stop()
		stopKeeping()
		return kept
	}
	t.Cleanup(func() {
		<-b.end()
		pool.Close()
	})
	return b
}

// restart serves with the configuration as it is now.
func (b *bench) restart(t *testing.T) {
	t.Helper()
	if b.stop != nil {
		b.stop()
	}
	l, err := listen(b.dir, "vault", uint32(os.Getuid()), b.config.Log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- NewServer(b.config).Serve(ctx, l) }()
	conn, err := grpc.NewClient("unix:"+SocketPath(b.dir, "vault"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	b.driver = v1alpha1.NewCSIDriverProviderClient(conn)
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			b.t.Errorf("the server ended with %v", err)
		}
		_ = conn.Close()
	})
}

// hold keeps the next request that reads "METHOD path" from Vault until release is called; arrived tells that it came.
func (b *bench) hold(request string) (arrived <-chan struct{}, release func()) {
	came, held := make(chan struct{}), make(chan struct{})
	release = sync.OnceFunc(func() { close(held) })
	b.t.Cleanup(release)
	var once sync.Once
	b.vault.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1/") == request {
			once.Do(func() {
				close(came)
				<-held
			})
		}
		return false
	})
	return came, release
}

// released waits for a token to be given back and returns the outcome.
func (b *bench) released(t *testing.T) string {
	t.Helper()
	select {
	case outcome := <-b.outcome:
		return outcome
	case <-time.After(patience):
		t.Fatal("nothing was given back")
		return ""
	}
}

func (b *bench) target(uid, volume string) string {
	return filepath.Join(b.dir, "pods", uid, "volumes/kubernetes.io~csi", volume, "mount")
}

// pod is a pod with one volume.
type pod struct {
	b                                    *bench
	namespace, name, uid, serviceAccount string
	target                               string
	parameters                           map[string]string
}

func (b *bench) pod(name string) pod {
	return pod{b: b, namespace: "shop", name: name, uid: "uid-" + name, serviceAccount: "app", target: b.target("uid-"+name, "secrets")}
}

func (p pod) mount(ctx context.Context, objects string) (*v1alpha1.MountResponse, error) {
	return p.b.driver.Mount(ctx, p.request(objects))
}

func (p pod) request(objects string) *v1alpha1.MountRequest {
	token := p.b.vault.Signer.Token(vaulttest.Claims{ServiceAccount: p.serviceAccount, Pod: p.name, UID: p.uid})
	attributes := map[string]string{
		"roleName": "app", "objects": objects,
		"csi.storage.k8s.io/pod.namespace":         p.namespace,
		"csi.storage.k8s.io/pod.name":              p.name,
		"csi.storage.k8s.io/pod.uid":               p.uid,
		"csi.storage.k8s.io/serviceAccount.name":   p.serviceAccount,
		"csi.storage.k8s.io/serviceAccount.tokens": fmt.Sprintf(`{"vault":{"token":%q,"expirationTimestamp":"2100-01-01T00:00:00Z"}}`, token.Reveal()),
	}
	for k, v := range p.parameters {
		attributes[k] = v
	}
	text, err := json.Marshal(attributes)
	if err != nil {
		panic(err)
	}
	return &v1alpha1.MountRequest{Attributes: string(text), Permission: "420", TargetPath: p.target}
}

func (p pod) mustMount(t *testing.T, objects string) *v1alpha1.MountResponse {
	t.Helper()
	response, err := p.mount(t.Context(), objects)
	if err != nil {
		t.Errorf("mount: %v", err)
	}
	return response
}

func content(r *v1alpha1.MountResponse, path string) string {
	for _, f := range r.GetFiles() {
		if f.GetPath() == path {
			return string(f.GetContents())
		}
	}
	return "no file " + path
}

func userVersion(r *v1alpha1.MountResponse) string {
	for _, v := range r.GetObjectVersion() {
		if v.GetId() == "user" {
			return v.GetVersion()
		}
	}
	return "no version of the user"
}

func equal(a, b *v1alpha1.MountResponse) bool { return a.String() == b.String() }

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// discardWriter is where a lost answer goes.
type discardWriter struct{ header http.Header }

func (d *discardWriter) Header() http.Header         { return d.header }
func (d *discardWriter) Write(p []byte) (int, error) { return len(p), nil }
func (d *discardWriter) WriteHeader(int)             {}

// revoke revokes a token behind the provider's back.
func revoke(t *testing.T, address, token string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/v1/auth/token/revoke-self", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Vault-Token", token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
}

// hijack closes the connection without an answer.
func hijack(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}
