package image

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"strings"
)

// writeLayer writes the image's one layer: a tar of its tree.
func (i *Image) writeLayer(w io.Writer) error {
	nodes, paths, err := i.tree()
	if err != nil {
		return err
	}
	layer := tar.NewWriter(w)
	for _, path := range paths {
		if err := writeNode(layer, path, nodes[path]); err != nil {
			return err
		}
	}
	return layer.Close()
}

// writeNode writes one entry of the layer. What its header leaves out is zero: the owner, who is root, and the time.
func writeNode(layer *tar.Writer, path string, n node) error {
	name := strings.TrimPrefix(path, "/")
	switch {
	case n.kind == tar.TypeDir:
		return layer.WriteHeader(&tar.Header{Typeflag: n.kind, Name: name + "/", Mode: n.mode})
	case n.kind == tar.TypeSymlink:
		return layer.WriteHeader(&tar.Header{Typeflag: n.kind, Name: name, Mode: n.mode, Linkname: n.link})
	case n.host == "":
		return writeFile(layer, name, 0o644, int64(len(n.text)), strings.NewReader(n.text))
	}

	file, err := os.Open(n.host)
	if err != nil {
		return err // it says which
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("read %q: not a regular file", n.host)
	}
	// The other bits depend on the umask of whoever made the file.
	mode := int64(0o644)
	if info.Mode().Perm()&0o111 != 0 {
		mode = 0o755
	}
	if err := writeFile(layer, name, mode, info.Size(), file); err != nil {
		return fmt.Errorf("read %q: %w", n.host, err)
	}
	return nil
}

// writeFile writes a file of exactly that size.
func writeFile(layer *tar.Writer, name string, mode, size int64, content io.Reader) error {
	if err := layer.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size}); err != nil {
		return err
	}
	_, err := io.CopyN(layer, content, size)
	return err
}
