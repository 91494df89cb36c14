package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	secretsstore "sigs.k8s.io/secrets-store-csi-driver/pkg/secrets-store"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"leasehold/internal/podwatch/podwatchtest"
	"leasehold/test/integration/bed"
)

const (
	nodeName   = "node"
	appsSpace  = "apps" // namespace and service account of all pods
	appAccount = "app"
	permission = "420" // 0644, as the driver sends it when nobody says otherwise
	atOnce     = 16    // Mounts of a node that is filled before it is measured
)

// node is a provider as it lives on a node: it watches pods, keeps its journal on a tmpfs, and writes into volumes that are
// tmpfs, too. The driver's own code calls it.
type node struct {
	world    *world
	stores   *stores
	options  bed.ProviderOptions
	provider *bed.Provider
	clients  *secretsstore.PluginClientBuilder
	driver   *bed.Driver          // lays out volumes
	api      *podwatchtest.Server // the fake one
	volumes  []*volume
}

// volume is one of a node's volumes with the call that the driver makes for it.
type volume struct {
	*bed.Volume
	request *v1alpha1.MountRequest
}

// withNode has something done with a new node, which has no volumes yet, and ends it.
func (w *world) withNode(ctx context.Context, o bed.ProviderOptions, do func(n *node) error) error {
	n, err := w.newNode(ctx, o, "")
	if err != nil {
		return err
	}
	return errors.Join(do(n), n.close())
}

// newNode starts a provider without volumes. It watches the pods of the API server that the kubeconfig names, or of a fake
// one if it names none.
func (w *world) newNode(ctx context.Context, o bed.ProviderOptions, kubeconfig string) (_ *node, err error) {
	s, err := w.stores(ctx)
	if err != nil {
		return nil, err
	}
	n := &node{world: w, stores: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	dir := filepath.Join(w.bed.Dir, w.unique("node"))
	o.Dir, o.StateDir = filepath.Join(dir, "providers"), filepath.Join(dir, "state")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(o.Dir, 0o700), os.Mkdir(o.StateDir, 0o700)); err != nil {
		return nil, err
	}
	if err := bed.MountTmpfs(o.StateDir, "mode=700"); err != nil {
		return nil, err
	}
	if o.VaultAddress == "" {
		o.VaultAddress = s.vault.Address
	}
	if kubeconfig == "" {
		kubeconfig = filepath.Join(dir, "kubeconfig")
		n.api = podwatchtest.New()
		if err := n.api.Kubeconfig(kubeconfig); err != nil {
			return nil, err
		}
	}
	// Of two flags the later one counts: the bed asks for more log than a node has.
	o.Args = append([]string{"--log-level=info", "--node-name=" + nodeName, "--kubeconfig=" + kubeconfig}, o.Args...)
	n.options = o
	if n.provider, err = w.bed.StartProvider(ctx, o); err != nil {
		return nil, err
	}
	n.clients = secretsstore.NewPluginClientBuilder([]string{o.Dir})
	n.driver, err = w.bed.NewDriver(n.provider, s.signer)
	return n, err
}

// close ends the provider and takes its volumes away. What it held ends with Vault.
func (n *node) close() (err error) {
	if n.clients != nil {
		n.clients.Cleanup()
	}
	if n.provider != nil {
		err = n.provider.Terminate()
	}
	for _, v := range n.volumes {
		err = errors.Join(err, v.Unmount())
	}
	if n.api != nil {
		n.api.Close()
	}
	return err
}

// add lays out so many volumes, each of a new pod. Nothing of them is mounted.
func (n *node) add(count int, role, objects string) ([]*volume, error) {
	var added []*volume
	for range count {
		pod := bed.Pod{Namespace: appsSpace, Name: n.world.unique("pod"), ServiceAccount: appAccount}
		pod.UID = fmt.Sprintf("%08x-1111-4222-8333-444444444444", n.world.count)
		n.api.SetPod(podwatchtest.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, Node: nodeName, ServiceAccount: pod.ServiceAccount})
		v, err := n.layOut(pod, role, objects)
		if err != nil {
			return nil, err
		}
		added = append(added, v)
	}
	return added, nil
}

// layOut makes the place of a pod's volume, and the call for it.
func (n *node) layOut(pod bed.Pod, role, objects string) (*volume, error) {
	parameters := map[string]string{"roleName": role, "objects": objects}
	v := &volume{Volume: n.driver.NewVolume(pod, "creds", parameters)}
	v.Tmpfs = true
	n.volumes = append(n.volumes, v)
	if err := v.Prepare(); err != nil {
		return nil, err
	}
	token, err := n.stores.signer.Token(pod, "vault", time.Hour)
	if err != nil {
		return nil, err
	}
	tokens, err := json.Marshal(map[string]any{"vault": map[string]any{
		"token": token, "expirationTimestamp": time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}})
	if err != nil {
		return nil, err
	}
	attributes := maps.Clone(parameters)
	maps.Copy(attributes, map[string]string{
		"csi.storage.k8s.io/pod.name":              pod.Name,
		"csi.storage.k8s.io/pod.namespace":         pod.Namespace,
		"csi.storage.k8s.io/pod.uid":               pod.UID,
		"csi.storage.k8s.io/serviceAccount.name":   pod.ServiceAccount,
		"csi.storage.k8s.io/ephemeral":             "true",
		"csi.storage.k8s.io/serviceAccount.tokens": string(tokens),
	})
	text, err := json.Marshal(attributes)
	if err != nil {
		return nil, err
	}
	v.request = &v1alpha1.MountRequest{Attributes: string(text), Secrets: "{}", Permission: permission, TargetPath: v.Path}
	return v, nil
}

// set sets a parameter of the volume's class.
func (v *volume) set(name, value string) error {
	var attributes map[string]string
	if err := json.Unmarshal([]byte(v.request.GetAttributes()), &attributes); err != nil {
		return err
	}
	attributes[name] = value
	text, err := json.Marshal(attributes)
	v.request.Attributes = string(text)
	return err
}

// mount is a Mount as the driver makes it: it asks the provider, and compares or writes the files.
func (n *node) mount(ctx context.Context, v *volume) error {
	client, err := n.clients.Get(ctx, "vault")
	if err != nil {
		return err
	}
	_, _, err = secretsstore.MountContent(ctx, client, v.request.GetAttributes(), v.request.GetSecrets(), v.Path, permission, nil)
	return err
}

// fill lays out and mounts so many volumes.
func (n *node) fill(ctx context.Context, count int, role, objects string) ([]*volume, error) {
	added, err := n.add(count, role, objects)
	if err != nil {
		return nil, err
	}
	return added, inParallel(ctx, atOnce, len(added), func(ctx context.Context, i int) error { return n.mount(ctx, added[i]) })
}

// inParallel does count pieces of work, so many of them at once, and stops at the first that fails.
func inParallel(ctx context.Context, atOnce, count int, work func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for i := range next {
				if err := work(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := 0; i < count && ctx.Err() == nil; i++ {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	workers.Wait()
	return context.Cause(ctx)
}
