package provider

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/pkg/util/fileutil"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"leasehold/internal/client/vaulttest"
	"leasehold/internal/render"
	"leasehold/internal/spec"
)

// mountedPod is a pod whose volume is mounted, with options such as "size=16k".
func (b *bench) mountedPod(t *testing.T, name, options string) pod {
	t.Helper()
	p := b.pod(name)
	mountTmpfs(t, p.target, options)
	return p
}

// refill fills the pod's volume as the keeper does, as if these had been the objects of its last Mount.
func (p pod) refill(t *testing.T, objects string) error {
	t.Helper()
	request := p.request(objects)
	mount, err := p.b.config.Operator.Parse(spec.Request{
		Attributes: request.GetAttributes(), Permission: request.GetPermission(), TargetPath: request.GetTargetPath(),
	})
	if err != nil {
		t.Fatal(err)
	}
	volume, err := p.b.config.Keeper.Open(t.Context(), mount)
	if err != nil {
		t.Fatal(err)
	}
	defer volume.Close()
	return NewServer(p.b.config).Refill(t.Context(), volume)
}

// shows returns the files that the pod finds, and checks that the volume has nothing else in it.
func (p pod) shows(t *testing.T, files []*v1alpha1.File) {
	t.Helper()
	var want []render.File
	for _, f := range files {
		want = append(want, render.File{Path: f.GetPath(), Mode: os.FileMode(f.GetMode()), Contents: f.GetContents()})
	}
	wantVolume(t, p.target, want)
}

func (p pod) read(t *testing.T, name string) string {
	t.Helper()
	contents, err := os.ReadFile(filepath.Join(p.target, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(contents)
}

// What a Mount answers is in the volume by then, and the driver finds nothing to change, at this poll and at the next.
func TestAnswerIsWhatTheVolumeShows(t *testing.T) {
	b := newBench(t)
	pod := b.mountedPod(t, "app-0", "")
	var before map[string]string
	for range 3 {
		response := pod.mustMount(t, userAndPassword)
		pod.shows(t, response.GetFiles())
		now := tree(t, pod.target)
		if before != nil && !maps.Equal(now, before) {
			t.Error("a poll changed the volume though nothing was due")
		}
		before = now
		if err := fileutil.WritePayloads(pod.target, response.GetFiles()); err != nil {
			t.Fatal(err)
		}
		if now := tree(t, pod.target); !maps.Equal(now, before) {
			t.Error("the driver found something to change")
		}
	}
}

func TestVolumeElsewhereIsTheDriversToWrite(t *testing.T) {
	b := newBench(t)
	pod := b.pod("app-0")
	if err := os.MkdirAll(pod.target, 0o750); err != nil { // no tmpfs
		t.Fatal(err)
	}
	if response := pod.mustMount(t, userAndPassword); len(response.GetFiles()) != 2 {
		t.Errorf("%d files, want 2", len(response.GetFiles()))
	}
	if entries, err := os.ReadDir(pod.target); err != nil || len(entries) > 0 {
		t.Errorf("%v (%v) was written to the disk", entries, err)
	}
	if err := pod.refill(t, userAndPassword); !errors.Is(err, errNotWritten) {
		t.Errorf("Refill: %v, want %v", err, errNotWritten)
	}
}

func TestRefillWritesWhatTheNextMountAnswers(t *testing.T) {
	b := newBench(t)
	pod := b.mountedPod(t, "app-0", "")
	first := pod.mustMount(t, userAndPassword)
	const more = userAndPassword + "- {objectName: app/kv, secretPath: kv/app, secretKey: username}\n"
	if err := pod.refill(t, more); err != nil {
		t.Fatal(err)
	}
	if got := pod.read(t, "app/kv"); got != "app" {
		t.Errorf("the added file holds %q, want \"app\"", got)
	}
	if got, want := pod.read(t, "user"), content(first, "user"); got != want {
		t.Errorf("the user is %q now, want %q as before", got, want)
	}
	before := tree(t, pod.target)
	second := pod.mustMount(t, more)
	pod.shows(t, second.GetFiles())
	if now := tree(t, pod.target); !maps.Equal(now, before) {
		t.Error("the poll after it changed the volume")
	}
	if err := pod.refill(t, more); err != nil {
		t.Fatal(err)
	}
	if now := tree(t, pod.target); !maps.Equal(now, before) {
		t.Error("a refill changed the volume though nothing was due")
	}
}

func TestFailedRefillLeavesTheFiles(t *testing.T) {
	const add = "- {objectName: more, secretPath: kv/app, secretKey: "
	for name, row := range map[string]struct {
		trouble func(*testing.T, *bench, pod)
		objects string
	}{
		"a missing key":         {objects: add + "none}"},
		"a missing secret":      {objects: "- {objectName: more, secretPath: kv/none, secretKey: x}"},
		"Vault sealed":          {objects: add + "username}", trouble: func(_ *testing.T, b *bench, _ pod) { b.vault.Seal(true) }},
		"Vault down":            {objects: add + "username}", trouble: func(_ *testing.T, b *bench, _ pod) { b.vault.Close() }},
		"the volume is full":    {objects: add + "large}", trouble: func(_ *testing.T, b *bench, _ pod) { b.vault.Write("kv/app", large) }},
		"the token was revoked": {objects: add + "username}", trouble: func(t *testing.T, b *bench, _ pod) { revoke(t, b.vault.Address(), b.vault.Tokens()[0]) }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			pod := b.mountedPod(t, "app-0", "size=64k")
			first := pod.mustMount(t, userAndPassword)
			if row.trouble != nil {
				row.trouble(t, b, pod)
			}
			if err := pod.refill(t, userAndPassword+row.objects); err == nil {
				t.Error("the refill did not fail")
			}
			pod.shows(t, first.GetFiles())
		})
	}
}

// large is a secret that does not fit into a volume of 64 KiB.
var large = vaulttest.Data{"username": "app", "large": strings.Repeat("x", 200<<10)}

// A mount that cannot be written is not mounted: the pod waits, and what was read for it serves kubelet's next try.
func TestMountIntoAFullVolumeFailsAndIsContinued(t *testing.T) {
	b := newBench(t)
	b.vault.Write("kv/app", large)
	const objects = userAndPassword + "- {objectName: large, secretPath: kv/app, secretKey: large}\n"
	pod := b.mountedPod(t, "app-0", "size=64k")
	_, err := pod.mount(t.Context(), objects)
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "shop/app-0: write the files into the volume: no space left on device") {
		t.Errorf("got %v, want Internal and why", err)
	}
	for _, user := range b.vault.Users() {
		if strings.Contains(err.Error(), user) {
			t.Error("the error names the user")
		}
	}
	if entries, err := os.ReadDir(pod.target); err != nil || len(entries) > 0 {
		t.Errorf("%v (%v) is left of it", entries, err)
	}
	if err := syscall.Mount("tmpfs", pod.target, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	pod.shows(t, pod.mustMount(t, objects).GetFiles())
	if logins, users := b.vault.Count("POST", login), b.vault.Count("GET", readUser); logins != 1 || users != 1 {
		t.Errorf("%d logins and %d users, want 1 and 1", logins, users)
	}
}

func TestRefillOfAVolumeThatIsGone(t *testing.T) {
	b := newBench(t)
	pod := b.mountedPod(t, "app-0", "")
	pod.mustMount(t, userAndPassword)
	unmount(t, pod.target)
	if err := pod.refill(t, userAndPassword); !errors.Is(err, errNotWritten) {
		t.Errorf("got %v, want %v", err, errNotWritten)
	}
	if entries, err := os.ReadDir(pod.target); err != nil || len(entries) > 0 {
		t.Errorf("%v (%v) was written to the disk below the volume", entries, err)
	}
}

// With rotation off, the bytes of a volume stay, whatever Vault has by now. The twin shows that it has.
func TestFrozenVolumeStays(t *testing.T) {
	b := newBench(t)
	const objects = "- {objectName: name, secretPath: kv/app, secretKey: username}"
	frozen, twin := b.mountedPod(t, "app-0", ""), b.mountedPod(t, "app-1", "")
	frozen.parameters = map[string]string{"rotation": "off", "refresh": "1s"}
	twin.parameters = map[string]string{"refresh": "1200ms"} // which is spread by a tenth
	first := frozen.mustMount(t, objects)
	before := tree(t, frozen.target)
	twin.mustMount(t, objects) // later, so that it is due later
	b.vault.Write("kv/app", vaulttest.Data{"username": "changed"})
	for deadline := time.Now().Add(patience); content(twin.mustMount(t, objects), "name") != "changed"; {
		if time.Now().After(deadline) {
			t.Fatal("the twin never changed")
		}
		time.Sleep(10 * time.Millisecond)
	}
	again := frozen.mustMount(t, objects)
	if !equal(again, first) {
		t.Error("the answer changed")
	}
	if err := frozen.refill(t, objects); err != nil {
		t.Error(err)
	}
	if now := tree(t, frozen.target); !maps.Equal(now, before) {
		t.Error("the volume changed")
	}
}

// A frozen volume is written again all the same if somebody took its files away, and is not asked Vault for.
func TestFrozenVolumeIsMended(t *testing.T) {
	b := newBench(t)
	pod := b.mountedPod(t, "app-0", "")
	pod.parameters = map[string]string{"rotation": "off"}
	first := pod.mustMount(t, userAndPassword)
	if err := os.Remove(filepath.Join(pod.target, "user")); err != nil {
		t.Fatal(err)
	}
	requests := len(b.vault.Requests())
	pod.mustMount(t, userAndPassword)
	pod.shows(t, first.GetFiles())
	if now := b.vault.Requests(); len(now) > requests {
		t.Errorf("asked for %q", now[requests:])
	}
}

// A frozen volume keeps its login. Once its class names another role, nothing that is new is read with the old one; what the
// volume has it keeps.
func TestFrozenVolumeReadsNothingForAnotherRole(t *testing.T) {
	b := newBench(t)
	b.vault.Write("auth/kubernetes/role/other", vaulttest.Data{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}, "token_policies": []string{"app"},
	})
	pod := b.mountedPod(t, "app-0", "")
	pod.parameters = map[string]string{"rotation": "off"}
	first := pod.mustMount(t, userAndPassword)
	more := userAndPassword + "\n- {objectName: name, secretPath: kv/app, secretKey: username}"
	requests := len(b.vault.Requests())
	pod.parameters = map[string]string{"rotation": "off", "roleName": "other"}
	_, err := pod.mount(t.Context(), more)
	if code := status.Code(err); code != codes.FailedPrecondition || !strings.Contains(err.Error(), `object "name": the class says rotation: off`) {
		t.Errorf("a new object of another role: got %v, want FailedPrecondition and why", err)
	}
	if again := pod.mustMount(t, userAndPassword); !equal(again, first) {
		t.Error("what the volume has changed")
	}
	if now := b.vault.Requests(); len(now) > requests {
		t.Errorf("asked for %q", now[requests:])
	}
	pod.shows(t, first.GetFiles())

	pod.parameters = map[string]string{"rotation": "off"}
	pod.shows(t, pod.mustMount(t, more).GetFiles()) // of the old role it may have more
}

func TestDeliverToken(t *testing.T) {
	b := newBench(t)
	b.vault.Write("auth/kubernetes/role/other", vaulttest.Data{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}, "token_policies": []string{"app"},
	})
	pod := b.mountedPod(t, "app-0", "")
	pod.parameters = map[string]string{"deliverToken": "sub/token"}
	first := pod.mustMount(t, userAndPassword)
	pod.shows(t, first.GetFiles())
	var names []string
	for _, f := range first.GetFiles() {
		names = append(names, f.GetPath())
		if f.GetPath() == "sub/token" && f.GetMode() != 0o644 {
			t.Errorf("mode %o, want the driver's, 644", f.GetMode())
		}
	}
	if want := []string{"password", "sub/token", "user"}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
	var versions []string
	for _, v := range first.GetObjectVersion() {
		versions = append(versions, v.GetId())
	}
	if !slices.Equal(versions, names) {
		t.Errorf("versions of %q, want of %q", versions, names)
	}
	token := pod.read(t, "sub/token")
	if tokens := b.vault.Tokens(); !slices.Equal(tokens, []string{token}) {
		t.Error("the file does not hold the volume's token")
	}
	if !equal(first, pod.mustMount(t, userAndPassword)) {
		t.Error("the answer changed though nothing did")
	}
	// A new login is a new token, with new credentials under it: all of them change together.
	pod.parameters["roleName"] = "other"
	second := pod.mustMount(t, userAndPassword)
	pod.shows(t, second.GetFiles())
	if content(first, "sub/token") == content(second, "sub/token") || content(first, "user") == content(second, "user") {
		t.Error("token or user stayed though the Vault role changed")
	}
	if tokens := b.vault.Tokens(); !slices.Contains(tokens, pod.read(t, "sub/token")) {
		t.Error("the file does not hold a token that lives")
	}
}
