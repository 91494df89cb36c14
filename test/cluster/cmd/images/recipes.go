package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"leasehold/test/cluster/image"
)

// parts is where the images' parts come from, besides Debian's packages.
type parts struct {
	bin   string // directory of our binaries
	chart string // file: the chart's Chart.yaml
}

// recipe is one image: its short name and what is in it.
type recipe struct {
	name    string
	compose func(context.Context, parts) (*image.Image, error)
}

// What stands in for others' images is called as they are: the driver's chart and containerd ask for them so.
const (
	driverImage        = "registry.k8s.io/csi-secrets-store/driver:v1.6.1"
	registrarImage     = "registry.k8s.io/sig-storage/csi-node-driver-registrar:v2.16.0"
	livenessprobeImage = "registry.k8s.io/sig-storage/livenessprobe:v2.18.0"
)

// recipes are all images.
var recipes = []recipe{
	{"pause", pause},
	{"driver", driver},
	{"registrar", registrar},
	{"livenessprobe", livenessprobe},
	{"provider", provider},
	{"webhook", webhook},
	{"app", app},
}

// names returns the short names of all images.
func names() []string {
	all := make([]string, len(recipes))
	for n, r := range recipes {
		all[n] = r.name
	}
	return all
}

// busybox is Debian's busybox-static.
const busybox = "/bin/busybox"

func pause(_ context.Context, from parts) (*image.Image, error) {
	return single(image.Pause, filepath.Join(from.bin, "pause"), "/pause")
}

func registrar(_ context.Context, from parts) (*image.Image, error) {
	return single(registrarImage, filepath.Join(from.bin, "registrar"), "/csi-node-driver-registrar")
}

func livenessprobe(_ context.Context, from parts) (*image.Image, error) {
	return single(livenessprobeImage, filepath.Join(from.bin, "livenessprobe"), "/livenessprobe")
}

// driver is the Secrets Store CSI driver. It runs mount and umount; the rest is to look around in it.
func driver(ctx context.Context, from parts) (*image.Image, error) {
	i, err := single(driverImage, filepath.Join(from.bin, "secrets-store-csi-driver"), "/secrets-store-csi")
	if err != nil {
		return nil, err
	}
	i.Env = []string{"PATH=/bin"}
	i.Directory("/tmp", os.ModeSticky|0o777)
	return i, applets(ctx, i, "mount", "umount", "sh", "ls", "cat")
}

// provider is the product's own image. It holds the program, the authorities that browsers trust, for a Vault whose
// certificate is of one of them, and nothing else: no shell.
func provider(_ context.Context, from parts) (*image.Image, error) {
	version, err := image.AppVersion(from.chart)
	if err != nil {
		return nil, err
	}
	i, err := single(image.Provider(version), filepath.Join(from.bin, "provider"), "/provider")
	if err != nil {
		return nil, err
	}
	i.User = "0" // only root may write into the volumes of pods
	i.Labels = labels("leasehold-provider", "Credentials from Vault for pods, through the Secrets Store CSI driver", version)
	authorities, err := first("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
	if err != nil {
		return nil, err
	}
	i.File("/etc/ssl/certs/ca-certificates.crt", authorities)
	return i, nil
}

// webhook is the product's other image. It holds the program and nothing else: whom it talks to, Kubernetes tells it by
// files.
func webhook(_ context.Context, from parts) (*image.Image, error) {
	version, err := image.AppVersion(from.chart)
	if err != nil {
		return nil, err
	}
	i, err := single(image.Webhook(version), filepath.Join(from.bin, "webhook"), "/webhook")
	if err != nil {
		return nil, err
	}
	i.User = "65532" // nobody's: it writes no file
	i.Labels = labels("leasehold-webhook", "Lets pods that are annotated for Vault's sidecar injector work without their sidecar", version)
	return i, nil
}

// labels are those of an image of the product.
func labels(title, description, version string) map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       title,
		"org.opencontainers.image.description": description,
		"org.opencontainers.image.version":     version,
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}
}

// app is what the pods of the demo and the end-to-end suite run: all of busybox, psql, and the client that lives on its
// credentials.
func app(ctx context.Context, from parts) (*image.Image, error) {
	i := &image.Image{
		Reference: image.App,
		Command:   []string{"/bin/sh"},
		Env:       []string{"PATH=/bin"},
	}
	i.Directory("/tmp", os.ModeSticky|0o777)
	i.Directory("/root", 0o700)
	i.Text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
	i.Text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")

	all, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list what %s can do: %w", busybox, err)
	}
	if err := applets(ctx, i, strings.Fields(string(all))...); err != nil {
		return nil, err
	}
	if err := i.StaticProgram("/bin/client", filepath.Join(from.bin, "client")); err != nil {
		return nil, err
	}
	psql, err := first("/usr/lib/postgresql/*/bin/psql")
	if err != nil {
		return nil, err
	}
	return i, i.Program(ctx, "/bin/psql", psql)
}

// single composes an image of one program of ours, which is its entrypoint.
func single(reference, program, path string) (*image.Image, error) {
	i := &image.Image{Reference: reference, Entrypoint: []string{path}}
	return i, i.StaticProgram(path, program)
}

// applets puts busybox into the image, with a link for each of the names by which it is called.
func applets(ctx context.Context, i *image.Image, names ...string) error {
	for _, name := range names {
		i.Symlink("/bin/"+name, "busybox")
	}
	return i.Program(ctx, "/bin/busybox", busybox) // last: it lists itself among its names
}

// first returns the first file that there is of the patterns (as of filepath.Match).
func first(patterns ...string) (string, error) {
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("there is no %s: tools/deps installs what is missing", strings.Join(patterns, " nor "))
}
