package bed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	secretsstore "sigs.k8s.io/secrets-store-csi-driver/pkg/secrets-store"
)

const (
	maxAnswer  = 4 << 20 // the driver's default for --max-call-recv-msg-size
	permission = "420"   // 0644, as the driver sends it when nobody says otherwise
	tokenLife  = time.Hour
)

// Driver stands for the Secrets Store CSI driver and the kubelet of one node. The calls are made, and the files written,
// by the driver's own code. What is ours is the request, put together as its NodePublishVolume does; missing are the
// Kubernetes API (class, status object) and, unless a volume asks for it, the tmpfs under each volume, which a plain
// directory stands for.
type Driver struct {
	clients *secretsstore.PluginClientBuilder
	signer  *Signer
	pods    string // kubelet's directory of pods
}

// NewDriver makes a driver that finds its providers where p has its socket. signer signs the pods' tokens.
func (b *Bed) NewDriver(p *Provider, signer *Signer) (*Driver, error) {
	pods := podsDir(p.Dir)
	if err := os.MkdirAll(pods, 0o750); err != nil {
		return nil, fmt.Errorf("driver: %w", err)
	}
	size := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer))
	d := &Driver{clients: secretsstore.NewPluginClientBuilder([]string{p.Dir}, size), signer: signer, pods: pods}
	b.onClose(func() error { d.clients.Cleanup(); return nil })
	return d, nil
}

// Reconnect drops all connections to providers, as a restart of the driver does.
func (d *Driver) Reconnect() { d.clients.Cleanup() }

// Volume is a CSI volume of a pod. Change its fields before Mount, as a user changes a class.
type Volume struct {
	Pod        Pod
	Name       string
	Parameters map[string]string // the class's; the pod's Attributes overwrite them
	Attributes map[string]string // the pod's volumeAttributes; kubelet's own overwrite them
	Secrets    map[string]string // nodePublishSecretRef; nil sends "{}"
	Audiences  []string          // the CSIDriver's tokenRequests; empty: no tokens
	TokenLife  time.Duration     // of each token; 0: an hour
	Path       string            // target path, laid out as kubelet's

	// Tmpfs mounts a tmpfs for the volume, as the driver does. It takes a program that called Isolate.
	Tmpfs bool

	// TokensInSecrets sends the tokens beside the Secrets, as Kubernetes 1.35 can, and not in the attributes.
	TokensInSecrets bool

	driver *Driver

	mu      sync.Mutex
	mounted bool             // a tmpfs is there
	tokens  map[string]token // by audience
}

type token struct {
	Token               string    `json:"token"`
	ExpirationTimestamp time.Time `json:"expirationTimestamp"`
}

// NewVolume describes a volume of a class with the parameters. Nothing exists before Mount.
func (d *Driver) NewVolume(pod Pod, name string, parameters map[string]string) *Volume {
	return &Volume{
		Pod: pod, Name: name, Parameters: parameters,
		Audiences: []string{"vault"},
		Path:      filepath.Join(d.pods, pod.UID, "volumes", "kubernetes.io~csi", name, "mount"),
		driver:    d,
		tokens:    make(map[string]token),
	}
}

// Mount calls the provider "vault" and writes the files that it answers. It returns the object versions by object. An
// error of the provider is a gRPC status. Called again, it is a kubelet's retry or a poll.
func (v *Volume) Mount(ctx context.Context) (map[string]string, error) {
	attributes, secrets, err := v.request()
	if err != nil {
		return nil, err
	}
	if err := v.Prepare(); err != nil {
		return nil, err
	}
	client, err := v.driver.clients.Get(ctx, "vault")
	if err != nil {
		return nil, fmt.Errorf("error connecting to provider %q: %w", "vault", err)
	}
	versions, _, err := secretsstore.MountContent(ctx, client, attributes, secrets, v.Path, permission, nil)
	return versions, err
}

// Prepare makes the place of the volume, if there is none yet. Mount does it by itself.
func (v *Volume) Prepare() error {
	if err := os.MkdirAll(v.Path, 0o750); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.Tmpfs || v.mounted {
		return nil
	}
	if err := MountTmpfs(v.Path, ""); err != nil {
		return err
	}
	v.mounted = true
	return nil
}

// request returns the attributes and the secrets of a Mount call.
func (v *Volume) request() (attributes, secrets string, err error) {
	all := maps.Clone(v.Parameters)
	if all == nil {
		all = make(map[string]string)
	}
	maps.Copy(all, v.Attributes)
	maps.Copy(all, map[string]string{
		"csi.storage.k8s.io/pod.name":            v.Pod.Name,
		"csi.storage.k8s.io/pod.namespace":       v.Pod.Namespace,
		"csi.storage.k8s.io/pod.uid":             v.Pod.UID,
		"csi.storage.k8s.io/serviceAccount.name": v.Pod.ServiceAccount,
		"csi.storage.k8s.io/ephemeral":           "true",
	})
	beside := maps.Clone(v.Secrets)
	if beside == nil {
		beside = make(map[string]string)
	}
	if len(v.Audiences) > 0 {
		tokens, err := v.serviceAccountTokens()
		if err != nil {
			return "", "", err
		}
		const key = "csi.storage.k8s.io/serviceAccount.tokens"
		if v.TokensInSecrets {
			beside[key] = tokens
		} else {
			all[key] = tokens
		}
	}
	a, err1 := json.Marshal(all)
	s, err2 := json.Marshal(beside)
	return string(a), string(s), errors.Join(err1, err2)
}

// serviceAccountTokens returns the tokens as kubelet passes them. Like kubelet, it keeps one for 80 % of its life.
func (v *Volume) serviceAccountTokens() (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	life := v.TokenLife
	if life == 0 {
		life = tokenLife
	}
	current := make(map[string]token, len(v.Audiences))
	for _, audience := range v.Audiences {
		t, ok := v.tokens[audience]
		if !ok || time.Until(t.ExpirationTimestamp) < life/5 {
			jwt, err := v.driver.signer.Token(v.Pod, audience, life)
			if err != nil {
				return "", err
			}
			t = token{Token: jwt, ExpirationTimestamp: time.Now().Add(life).UTC().Truncate(time.Second)}
			v.tokens[audience] = t
		}
		current[audience] = t
	}
	text, err := json.Marshal(current)
	return string(text), err
}

// Files returns the files that an application sees in the volume, by path, and all of one set: when another one takes its
// place meanwhile, that one. A volume that was never mounted has none.
func (v *Volume) Files() (map[string][]byte, error) {
	set := func() string {
		name, _ := os.Readlink(filepath.Join(v.Path, "..data")) // "" where nothing was written yet
		return name
	}
	for {
		before := set()
		files, err := v.read()
		if set() == before {
			return files, err
		}
	}
}

// read reads the files one by one.
func (v *Volume) read() (map[string][]byte, error) {
	files := make(map[string][]byte)
	// The driver's writer puts files into a directory that the link ..data names, and links their first component.
	top, err := os.ReadDir(v.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, entry := range top {
		if strings.HasPrefix(entry.Name(), "..") {
			continue
		}
		shown, err := filepath.EvalSymlinks(filepath.Join(v.Path, entry.Name()))
		if err != nil {
			return nil, err
		}
		err = filepath.WalkDir(shown, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			files[filepath.Join(entry.Name(), strings.TrimPrefix(path, shown))] = text
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// Mode returns the permissions of a file.
func (v *Volume) Mode(path string) (fs.FileMode, error) {
	info, err := os.Stat(filepath.Join(v.Path, path))
	if err != nil {
		return 0, err
	}
	return info.Mode().Perm(), nil
}

// Unmount removes the volume, as the driver does when the pod has gone. Nothing tells the provider.
func (v *Volume) Unmount() error {
	v.mu.Lock()
	mounted := v.mounted
	v.mounted = false
	v.mu.Unlock()
	if mounted {
		if err := Unmount(v.Path); err != nil {
			return err
		}
	}
	return os.RemoveAll(v.Path)
}
