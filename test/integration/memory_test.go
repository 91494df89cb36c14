package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"leasehold/test/integration/bed"
)

const loginPath = "auth/kubernetes/login"

// wantRequests fails the test unless so many logins, and reads of the role's database credentials, have reached Vault.
func wantRequests(t testing.TB, trouble *bed.Trouble, role string, logins, reads int) {
	t.Helper()
	l, r := trouble.Count("POST", loginPath), trouble.Count("GET", "database/creds/"+role)
	if l != logins || r != reads {
		t.Errorf("requests: got %d logins and %d reads, want %d and %d, of %v", l, r, logins, reads, trouble.Requests())
	}
}

// mountsOK is the provider's count of Mounts that it has answered without an error.
const mountsOK = `leasehold_mount_duration_seconds_count{code="OK"}`

// counted returns the value of a metric, labels included, such as `name_count{code="OK"}`; 0 when there is none yet.
func counted(t testing.TB, p *bed.Provider, metric string) int {
	t.Helper()
	text, err := p.Metrics(t.Context())
	must(t, "metrics", err)
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, metric+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			must(t, metric, err)
			return int(n)
		}
	}
	return 0
}

// waitCounted waits until a metric has reached a value.
func waitCounted(t testing.TB, p *bed.Provider, metric string, value int) {
	t.Helper()
	eventually(t, metric, func(context.Context) error {
		if n := counted(t, p, metric); n < value {
			return fmt.Errorf("got %d, want %d", n, value)
		}
		return nil
	})
}

// wait fails the test unless something arrives on the channel.
func wait[T any](t testing.TB, what string, c <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-c:
	case <-time.After(patience):
		t.Fatalf("%s: not within %s", what, patience)
	}
	return value
}

// background mounts on a goroutine of its own. The channel gets the error, or nil.
func background(ctx context.Context, t testing.TB, v *bed.Volume) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := mountWithin(ctx, t, v)
		done <- err
	}()
	return done
}

// mountAll mounts all volumes at once.
func mountAll(t testing.TB, volumes []*bed.Volume) {
	t.Helper()
	var pending []<-chan error
	for _, v := range volumes {
		pending = append(pending, background(t.Context(), t, v))
	}
	for i, done := range pending {
		if err := wait(t, "mount", done); err != nil {
			t.Errorf("mount %d: %v", i, err)
		}
	}
}

// request is what the driver asks the provider for a volume. With it a test can call as no driver does.
func request(t testing.TB, v *bed.Volume) *v1alpha1.MountRequest {
	t.Helper()
	jwt, err := shared.signer.Token(v.Pod, "vault", time.Hour)
	must(t, "token", err)
	tokens, err := json.Marshal(map[string]any{"vault": map[string]any{"token": jwt}})
	must(t, "tokens", err)
	attributes := maps.Clone(v.Parameters)
	maps.Copy(attributes, map[string]string{
		"csi.storage.k8s.io/pod.name":              v.Pod.Name,
		"csi.storage.k8s.io/pod.namespace":         v.Pod.Namespace,
		"csi.storage.k8s.io/pod.uid":               v.Pod.UID,
		"csi.storage.k8s.io/serviceAccount.name":   v.Pod.ServiceAccount,
		"csi.storage.k8s.io/serviceAccount.tokens": string(tokens),
	})
	text, err := json.Marshal(attributes)
	must(t, "attributes", err)
	return &v1alpha1.MountRequest{Attributes: string(text), Secrets: "{}", Permission: "420", TargetPath: v.Path}
}

// dial returns a client of the provider's socket. wrap may put something between the two.
func dial(t testing.TB, p *bed.Provider, wrap func(net.Conn) net.Conn) v1alpha1.CSIDriverProviderClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+p.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, "unix", p.Socket())
			if err != nil {
				return nil, err
			}
			return wrap(c), nil
		}))
	must(t, "dial", err)
	t.Cleanup(func() { _ = conn.Close() })
	return v1alpha1.NewCSIDriverProviderClient(conn)
}

// deafConn is a connection of which nothing is heard any more once it is deaf.
type deafConn struct {
	net.Conn
	deaf *atomic.Bool
}

func (c deafConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.deaf.Load() {
			return n, err
		}
	}
}

// look is what tells whether the driver has written a volume: it swaps the link ..data, and touches the directory.
func look(t testing.TB, v *bed.Volume) string {
	t.Helper()
	var b strings.Builder
	for _, path := range []string{v.Path, filepath.Join(v.Path, "..data")} {
		info, err := os.Lstat(path)
		must(t, "look at the volume", err)
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			t.Fatalf("look at %s: no inode", path)
		}
		fmt.Fprintf(&b, "%s: inode %d, changed %s; ", filepath.Base(path), stat.Ino, info.ModTime())
	}
	target, err := os.Readlink(filepath.Join(v.Path, "..data"))
	must(t, "look at the volume", err)
	return b.String() + target
}

func TestThousandPolls(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
	v := newVolume(t, p, class(name, credentials(name)+
		object("all.json", "database/creds/"+name, "")+
		object("word", putKV1(t, map[string]any{"word": "xyzzy"}), "word")+
		object("static.json", "database/static-creds/db-static", "")+`
- {objectName: tls.crt, secretKey: certificate, secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: app.example}}
`))
	versions := mustMount(t, v)
	first, seen, requests := files(t, v), look(t, v), trouble.Requests()
	for poll := range 1000 {
		if again := mustMount(t, v); !maps.Equal(again, versions) {
			t.Fatalf("object versions at poll %d: got %v, want the same as before, %v", poll, again, versions)
		}
	}
	wantFiles(t, files(t, v), first)
	if now := look(t, v); now != seen {
		t.Errorf("the volume: got %s, want it as the first mount left it: %s", now, seen)
	}
	if got := trouble.Requests(); !maps.Equal(got, requests) {
		t.Errorf("requests: got %v, want those of the first mount, %v", got, requests)
	}
	holds(t, name, 1, 1)
}

func TestFiftyPods(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	p, name := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address}), role(t, bed.Role{})
	volumes := make([]*bed.Volume, 50)
	for i := range volumes {
		volumes[i] = newVolume(t, p, class(name, credentials(name)))
	}
	mountAll(t, volumes)
	users := make(map[string]bool)
	for _, v := range volumes {
		logIn(t, v)
		users[files(t, v)["username"]] = true
	}
	if len(users) != len(volumes) {
		t.Errorf("users of %d pods: got %d, want one each", len(volumes), len(users))
	}
	wantRequests(t, trouble, name, len(volumes), len(volumes))
	holds(t, name, len(volumes), len(volumes))
}

// TestConcurrentMounts calls for one volume many times at once, without the driver's writer, which is not made for that.
func TestConcurrentMounts(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	p, name := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address}), role(t, bed.Role{})
	v := newVolume(t, p, class(name, credentials(name)))
	client := dial(t, p, func(c net.Conn) net.Conn { return c })
	login := trouble.Block(loginPath)
	requests := make([]*v1alpha1.MountRequest, 20)
	for i := range requests {
		requests[i] = request(t, v)
	}
	answers := make([]string, len(requests))
	var calls sync.WaitGroup
	for i, r := range requests {
		calls.Go(func() {
			answer, err := client.Mount(t.Context(), r)
			if err != nil {
				t.Errorf("call %d: %v", i, err)
				return
			}
			for j, f := range answer.GetFiles() {
				answers[i] += fmt.Sprintf("%s %s %q\n", f.GetPath(), answer.GetObjectVersion()[j].GetVersion(), f.GetContents())
			}
		})
	}
	wait(t, "login", login.Arrived())
	login.Open()
	calls.Wait()
	for i, a := range answers {
		if a == "" || a != answers[0] {
			t.Errorf("call %d: got the answer %q, want that of all, %q", i, a, answers[0])
		}
	}
	wantRequests(t, trouble, name, 1, 1)
	holds(t, name, 1, 1)
}

// TestCancelledMount has the driver give up at each moment of a Mount, ask again, and again. However that goes, Vault
// sees one login and makes one user.
func TestCancelledMount(t *testing.T) {
	t.Parallel()
	type gate func(t *bed.Trouble, role string) *bed.Gate
	for moment, hold := range map[string]gate{
		"before Vault sees the login":  func(t *bed.Trouble, _ string) *bed.Gate { return t.Block(loginPath) },
		"before the login is answered": func(t *bed.Trouble, _ string) *bed.Gate { return t.BlockAnswer(loginPath) },
		"before Vault sees the read":   func(t *bed.Trouble, r string) *bed.Gate { return t.Block("database/creds/" + r) },
		"before the read is answered":  func(t *bed.Trouble, r string) *bed.Gate { return t.BlockAnswer("database/creds/" + r) },
	} {
		for _, landed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, late answer landed %t", moment, landed), func(t *testing.T) {
				t.Parallel()
				trouble := startTrouble(t)
				name := role(t, bed.Role{})
				p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address, Args: []string{"--abandon-after=1m"}})
				v := newVolume(t, p, class(name, credentials(name)))
				gate := hold(trouble, name)

				// The first call is cancelled when Vault is at that moment.
				ctx, cancel := context.WithCancel(t.Context())
				first := background(ctx, t, v)
				wait(t, "request", gate.Arrived())
				cancel()
				if err := wait(t, "cancelled mount", first); status.Code(err) != codes.Canceled {
					t.Errorf("cancelled mount: got error %v, want one that says so", err)
				}
				if landed {
					gate.Open()
					waitCounted(t, p, `leasehold_vault_request_duration_seconds_count{operation="login",outcome="ok"}`, 1)
				} else {
					// Others come and go while Vault is still at it.
					const givenUp = `leasehold_mount_duration_seconds_count{code="Internal"}`
					for patience := 20 * time.Millisecond; counted(t, p, givenUp) < 3; patience *= 2 {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						if _, err := mountWithin(ctx, t, v); err == nil {
							t.Fatal("mount while Vault does not answer: got no error")
						}
						cancel()
					}
					gate.Open()
				}
				mustMount(t, v)
				logIn(t, v)
				wantRequests(t, trouble, name, 1, 1)
				holds(t, name, 1, 1)
			})
		}
	}
}

// TestLostAnswer has the provider answer, and the answer never reach the driver.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	p, name := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address}), role(t, bed.Role{})
	v := newVolume(t, p, class(name, credentials(name)))
	var deaf atomic.Bool
	client := dial(t, p, func(c net.Conn) net.Conn { return deafConn{c, &deaf} })
	_, err := client.Version(t.Context(), &v1alpha1.VersionRequest{Version: "v1alpha1"})
	must(t, "connect", err)
	deaf.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	r := request(t, v)
	go func() {
		_, err := client.Mount(ctx, r)
		done <- err
	}()
	waitCounted(t, p, mountsOK, 1)
	cancel()
	if err := wait(t, "the call without an answer", done); status.Code(err) != codes.Canceled {
		t.Errorf("the call without an answer: got error %v, want Canceled", err)
	}
	mustMount(t, v)
	logIn(t, v)
	wantRequests(t, trouble, name, 1, 1)
	holds(t, name, 1, 1)
}

// TestCancelledAtAnyMoment has kubelet's patience end after ever longer times, from none to more than a Mount takes.
func TestCancelledAtAnyMoment(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name := role(t, bed.Role{})
	p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address, Args: []string{"--abandon-after=1m"}})
	const volumes = 60
	cancelled := 0
	for i := range volumes {
		v := newVolume(t, p, class(name, credentials(name)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*400*time.Microsecond)
		if _, err := mountWithin(ctx, t, v); err != nil {
			cancelled++
		}
		cancel()
		mustMount(t, v)
		logIn(t, v)
	}
	if cancelled == 0 {
		t.Error("no Mount was cancelled, which shows nothing")
	}
	wantRequests(t, trouble, name, volumes, volumes)
	holds(t, name, volumes, volumes)
}

func TestFailedMountThenSuccess(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	name, secret := role(t, bed.Role{}), shared.unique("secret")
	p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address, Args: []string{"--abandon-after=1m"}})
	v := newVolume(t, p, class(name, credentials(name)+object("word", "kv/data/"+secret, "word")))
	for range 3 {
		_, err := mount(t, v)
		wantStatus(t, err, codes.NotFound,
			"pod apps/"+v.Pod.Name, `object "word"`, `read "kv/data/`+secret+`"`, "404", "check secretPath")
		wantFiles(t, files(t, v), nil)
	}
	must(t, "put", shared.vault.PutKV2(t.Context(), "kv", secret, map[string]any{"word": "xyzzy"}))
	mustMount(t, v)
	logIn(t, v)
	if got := files(t, v)["word"]; got != "xyzzy" {
		t.Errorf("word: got %q, want xyzzy", got)
	}
	wantRequests(t, trouble, name, 1, 1)
	holds(t, name, 1, 1)
}

func TestAbandonedMounts(t *testing.T) {
	t.Parallel()
	trouble := startTrouble(t)
	p, name := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address}), role(t, bed.Role{})
	const volumes = 5
	for range volumes {
		_, err := mount(t, newVolume(t, p, class(name, credentials(name)+object("word", "kv1/nothing-here", ""))))
		wantStatus(t, err, codes.NotFound, "kv1/nothing-here")
	}
	wantRequests(t, trouble, name, volumes, volumes)
	left(t, name)
	waitCounted(t, p, `leasehold_releases_total{outcome="revoked"}`, volumes)
	eventually(t, "the provider forgets the volumes", func(context.Context) error {
		if n := counted(t, p, "leasehold_volumes"); n != 0 {
			return fmt.Errorf("got %d volumes, want none", n)
		}
		return nil
	})
}

// TestGracefulStop ends the provider while Mounts are at work. It gives nothing back: what they have gained is in the
// journal, and the next instance gives it back when nobody tries again. What a volume shows, that one keeps.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	for moment, row := range map[string]struct {
		path   func(role string) string // where Vault's answers are held
		cancel bool                     // the driver has given up before
	}{
		"reads at work":           {func(role string) string { return "database/creds/" + role }, false},
		"reads nobody waits for":  {func(role string) string { return "database/creds/" + role }, true},
		"logins at work":          {func(string) string { return loginPath }, false},
		"logins nobody waits for": {func(string) string { return loginPath }, true},
	} {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			trouble := startTrouble(t)
			name := role(t, bed.Role{})
			p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address, Args: []string{"--abandon-after=1m"}})
			quiet := newVolume(t, p, class(name, credentials(name)))
			versions := mustMount(t, quiet)

			gate := trouble.BlockAnswer(row.path(name))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			const volumes = 5
			var pending []<-chan error
			for range volumes {
				v := newVolume(t, p, class(name, credentials(name)+object("word", "kv1/nothing-here", "")))
				pending = append(pending, background(ctx, t, v))
			}
			for range volumes {
				wait(t, "request", gate.Arrived())
			}
			if row.cancel {
				cancel()
				for _, done := range pending {
					if err := wait(t, "cancelled mount", done); status.Code(err) != codes.Canceled {
						t.Errorf("cancelled mount: got error %v, want Canceled", err)
					}
				}
			}
			ended := terminated(t, p)
			eventually(t, "the provider takes no more calls", func(ctx context.Context) error {
				c, err := (&net.Dialer{}).DialContext(ctx, "unix", p.Socket())
				if err != nil {
					return nil
				}
				return errors.Join(errors.New("it does"), c.Close())
			})
			gate.Open()
			if !row.cancel { // those at work are answered
				for _, done := range pending {
					wantStatus(t, wait(t, "mount", done), codes.NotFound, "kv1/nothing-here")
				}
			}
			must(t, "exit status", wait(t, "the provider's end", ended))
			if got := trouble.Count("POST", "auth/token/revoke-self"); got != 0 {
				t.Errorf("tokens given back at the end: got %d, want none", got)
			}
			startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address, Dir: p.Dir})
			holds(t, name, 1, 1)
			if again := mustMount(t, quiet); !maps.Equal(again, versions) {
				t.Errorf("object versions after the restart: got %v, want those of before, %v", again, versions)
			}
			logIn(t, quiet)
		})
	}
}

// TestKillAndRestart has the driver stay connected while the provider dies and comes back.
func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(testing.TB, *bed.Provider){"killed": kill, "stopped": stop} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			name := role(t, bed.Role{})
			trouble := startTrouble(t)
			p := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address})
			v := newVolume(t, p, class(name, credentials(name)))
			versions := mustMount(t, v)
			before, seen := files(t, v), look(t, v)
			end(t, p)
			if _, err := os.Stat(p.Socket()); err != nil {
				t.Errorf("the socket while nobody listens: got %v, want the old one: a driver that finds none fails at once", err)
			}
			logIn(t, v) // pods outlive their provider

			other := newVolume(t, p, class(name, credentials(name)))
			waiting := background(t.Context(), t, other) // the driver waits for the socket
			again := startProvider(t, bed.ProviderOptions{VaultAddress: trouble.Address, Dir: p.Dir})
			must(t, "mount that began without a provider", wait(t, "mount", waiting))
			logIn(t, other)
			if polled := mustMount(t, v); !maps.Equal(polled, versions) {
				t.Errorf("object versions after the restart: got %v, want those of before, %v", polled, versions)
			}
			wantFiles(t, files(t, v), before)
			if now := look(t, v); now != seen {
				t.Errorf("the volume: got %s, want it as the first mount left it: %s", now, seen)
			}
			wantRequests(t, trouble, name, 2, 2) // one for each volume
			logIn(t, v)
			fresh := newVolume(t, again, class(name, credentials(name))) // a driver that has just started finds it too
			mustMount(t, fresh)
			logIn(t, fresh)
		})
	}
}
