package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Write writes the image as a tar: manifest.json, the configuration and the layer, in this order. It reads each file of
// the host twice, once for the digest that stands in front and once for the content, and fails if they differ.
func (i *Image) Write(w io.Writer) error {
	d, err := i.describe()
	if err == nil {
		err = i.write(w, d)
	}
	if err != nil {
		return fmt.Errorf("image %q: %w", i.Reference, err)
	}
	return nil
}

// Update makes the file the tar of the image, and reports whether it had to. A file that is there is replaced as a
// whole or not at all.
//
// It goes by content, not by time: "go build" touches what it leaves as it is, and what Debian unpacks is old from the
// start.
func (i *Image) Update(file string) (written bool, err error) {
	written, err = i.update(file)
	if err != nil {
		return false, fmt.Errorf("image %q: %w", i.Reference, err)
	}
	return written, nil
}

func (i *Image) update(file string) (bool, error) {
	d, err := i.describe()
	if err != nil {
		return false, err
	}
	// The manifest names the configuration by its digest, and that holds the digest of the layer.
	if there, err := readManifest(file); err == nil && bytes.Equal(there, d.manifest) {
		return false, nil
	}
	temporary, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.Remove(temporary.Name()) }() // if all goes well it has another name by then
	if err := errors.Join(i.write(temporary, d), temporary.Chmod(0o644), temporary.Close()); err != nil {
		return false, err
	}
	return true, os.Rename(temporary.Name(), file)
}

// description is all of the tar but the layer.
type description struct {
	manifest   []byte // names the others
	config     []byte
	configName string
	layerName  string
	layerSum   [sha256.Size]byte
	layerSize  int64
}

// describe reads all files to find out what the tar says of them.
func (i *Image) describe() (*description, error) {
	hash, size := sha256.New(), counter(0)
	if err := i.writeLayer(io.MultiWriter(hash, &size)); err != nil {
		return nil, err
	}
	d := &description{layerSum: [sha256.Size]byte(hash.Sum(nil)), layerSize: int64(size)}
	d.layerName = fmt.Sprintf("%x.tar", d.layerSum)

	// Both are of Docker's image format, version 1.2, with the names that it gives them.
	type settings struct {
		Entrypoint []string          `json:",omitempty"`
		Cmd        []string          `json:",omitempty"`
		Env        []string          `json:",omitempty"`
		User       string            `json:",omitempty"`
		Labels     map[string]string `json:",omitempty"`
	}
	type rootfs struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	var err error
	d.config, err = json.Marshal(struct {
		Architecture string    `json:"architecture"`
		OS           string    `json:"os"`
		Created      time.Time `json:"created"`
		Config       settings  `json:"config"`
		RootFS       rootfs    `json:"rootfs"`
	}{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Created:      time.Unix(0, 0).UTC(),
		Config:       settings{i.Entrypoint, i.Command, i.Env, i.User, i.Labels},
		RootFS:       rootfs{Type: "layers", DiffIDs: []string{fmt.Sprintf("sha256:%x", d.layerSum)}},
	})
	if err != nil {
		return nil, err
	}
	d.configName = fmt.Sprintf("%x.json", sha256.Sum256(d.config))

	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	d.manifest, err = json.Marshal([]entry{{d.configName, []string{i.Reference}, []string{d.layerName}}})
	return d, err
}

// write writes the tar that was described.
func (i *Image) write(w io.Writer, d *description) error {
	archive := tar.NewWriter(w)
	err := writeFile(archive, manifestName, 0o644, int64(len(d.manifest)), bytes.NewReader(d.manifest))
	if err != nil {
		return err
	}
	err = writeFile(archive, d.configName, 0o644, int64(len(d.config)), bytes.NewReader(d.config))
	if err != nil {
		return err
	}
	layer := &tar.Header{Typeflag: tar.TypeReg, Name: d.layerName, Mode: 0o644, Size: d.layerSize}
	if err := archive.WriteHeader(layer); err != nil {
		return err
	}
	hash := sha256.New()
	err = i.writeLayer(io.MultiWriter(archive, hash))
	if errors.Is(err, tar.ErrWriteTooLong) || err == nil && [sha256.Size]byte(hash.Sum(nil)) != d.layerSum {
		return errors.New("a file changed while it was read")
	}
	if err != nil {
		return err
	}
	return archive.Close()
}

// manifestName is where the tar says what it holds.
const manifestName = "manifest.json"

// readManifest returns the manifest of a tar that Write made.
func readManifest(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	archive := tar.NewReader(f)
	header, err := archive.Next()
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", file, err)
	}
	if header.Name != manifestName {
		return nil, fmt.Errorf("read %q: it begins with %q, not %q", file, header.Name, manifestName)
	}
	return io.ReadAll(archive)
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
