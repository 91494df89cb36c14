package bed_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"leasehold/test/integration/bed"
	"leasehold/test/integration/bed/bedtest"
)

// echo is a provider that keeps the last request.
type echo struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
	request *v1alpha1.MountRequest
}

func (e *echo) Mount(_ context.Context, r *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	e.request = r
	if strings.Contains(r.GetAttributes(), `"deny":"yes"`) {
		return nil, grpcstatus.Error(codes.PermissionDenied, "no")
	}
	return &v1alpha1.MountResponse{
		ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "user", Version: "1"}},
		Files: []*v1alpha1.File{
			{Path: "user", Mode: 0o640, Contents: []byte("me")},
			{Path: "deep/down/word", Mode: 0o400, Contents: []byte("xyz")},
		},
	}, nil
}

func startEcho(t *testing.T) (*echo, *bed.Provider) {
	t.Helper()
	dir := t.TempDir()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "vault.sock"))
	check(t, "listen", err)
	server, provider := grpc.NewServer(), &echo{}
	v1alpha1.RegisterCSIDriverProviderServer(server, provider)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return provider, &bed.Provider{Dir: dir}
}

var pod = bed.Pod{Namespace: "apps", Name: "db-app-1", UID: "11111111-2222-4333-8444-555555555555", ServiceAccount: "db-app"}

func TestDriverMounts(t *testing.T) {
	provider, at := startEcho(t)
	signer, err := bed.NewSigner(bed.ES256)
	check(t, "signer", err)
	driver, err := bedtest.Open(t).NewDriver(at, signer)
	check(t, "driver", err)
	volume := driver.NewVolume(pod, "creds", map[string]string{"roleName": "of the class", "objects": "- x", "csi.storage.k8s.io/pod.uid": "forged"})
	volume.Attributes = map[string]string{"roleName": "of the pod"}

	if files, err := volume.Files(); err != nil || len(files) > 0 {
		t.Errorf("files before the mount: got %d, %v, want none", len(files), err)
	}
	versions, err := volume.Mount(t.Context())
	check(t, "mount", err)
	if versions["user"] != "1" || len(versions) != 1 {
		t.Errorf("versions: got %v, want user: 1", versions)
	}
	files, err := volume.Files()
	check(t, "files", err)
	if len(files) != 2 || string(files["user"]) != "me" || string(files["deep/down/word"]) != "xyz" {
		t.Errorf("files: got %q", files)
	}
	for path, want := range map[string]fs.FileMode{"user": 0o640, "deep/down/word": 0o400} {
		if mode, err := volume.Mode(path); err != nil || mode != want {
			t.Errorf("mode of %s: got %o, %v, want %o", path, mode, err, want)
		}
	}

	r := provider.request
	if !strings.HasSuffix(r.GetTargetPath(), "/pods/"+pod.UID+"/volumes/kubernetes.io~csi/creds/mount") {
		t.Errorf("target path: got %s", r.GetTargetPath())
	}
	if r.GetPermission() != "420" || r.GetSecrets() != "{}" || len(r.GetCurrentObjectVersion()) > 0 {
		t.Errorf("request: got permission %s, %d bytes of secrets, %d versions, want 420, {} and none",
			r.GetPermission(), len(r.GetSecrets()), len(r.GetCurrentObjectVersion()))
	}
	var attributes map[string]string
	check(t, "attributes", json.Unmarshal([]byte(r.GetAttributes()), &attributes))
	for key, want := range map[string]string{
		"roleName": "of the pod", "objects": "- x", "csi.storage.k8s.io/pod.uid": pod.UID, "csi.storage.k8s.io/pod.name": pod.Name,
		"csi.storage.k8s.io/pod.namespace": "apps", "csi.storage.k8s.io/serviceAccount.name": "db-app", "csi.storage.k8s.io/ephemeral": "true",
	} {
		if got := attributes[key]; got != want {
			t.Errorf("attribute %s: got %q, want %q", key, got, want)
		}
	}
	checkTokens(t, attributes["csi.storage.k8s.io/serviceAccount.tokens"], signer)

	_, err = volume.Mount(t.Context())
	check(t, "poll", err)
	if got := len(signer.Issued()); got != 1 {
		t.Errorf("tokens signed for a mount and a poll: got %d, want 1, as kubelet keeps it", got)
	}
	check(t, "unmount", volume.Unmount())
	if _, err := os.Stat(volume.Path); err == nil {
		t.Error("the volume is still there after Unmount")
	}
}

func checkTokens(t *testing.T, text string, signer *bed.Signer) {
	t.Helper()
	var tokens map[string]struct {
		Token               string    `json:"token"`
		ExpirationTimestamp time.Time `json:"expirationTimestamp"`
	}
	check(t, "tokens", json.Unmarshal([]byte(text), &tokens))
	got, ok := tokens["vault"]
	if !ok || len(tokens) != 1 || time.Until(got.ExpirationTimestamp) < 50*time.Minute {
		t.Fatalf("tokens: got %d, one for vault %t, end %s", len(tokens), ok, got.ExpirationTimestamp)
	}
	parsed, err := jwt.ParseSigned(got.Token, []jose.SignatureAlgorithm{bed.ES256})
	check(t, "parse", err)
	var claims map[string]any
	check(t, "claims", parsed.UnsafeClaimsWithoutVerification(&claims))
	if claims["sub"] != "system:serviceaccount:apps:db-app" || !strings.Contains(signer.PublicKey, "PUBLIC KEY") {
		t.Errorf("claims: got %v", claims)
	}
}

func TestDriverPassesErrorsAndSecrets(t *testing.T) {
	provider, at := startEcho(t)
	signer, err := bed.NewSigner(bed.ES256)
	check(t, "signer", err)
	driver, err := bedtest.Open(t).NewDriver(at, signer)
	check(t, "driver", err)
	volume := driver.NewVolume(pod, "creds", map[string]string{"deny": "yes"})
	volume.TokensInSecrets = true
	volume.Secrets = map[string]string{"ca.crt": "pem"}
	if _, err := volume.Mount(t.Context()); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Errorf("got error %v, want PermissionDenied", err)
	}
	var secrets map[string]string
	check(t, "secrets", json.Unmarshal([]byte(provider.request.GetSecrets()), &secrets))
	if secrets["ca.crt"] != "pem" || secrets["csi.storage.k8s.io/serviceAccount.tokens"] == "" {
		t.Errorf("secrets: got %d, want the certificate and the tokens", len(secrets))
	}
	if strings.Contains(provider.request.GetAttributes(), "serviceAccount.tokens") {
		t.Error("attributes hold the tokens, want them in the secrets only")
	}
}
