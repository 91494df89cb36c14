// Package image writes container images from files of this machine, as the tar that "docker save" makes and that
// containerd imports. The cluster gets its images so, without a registry, a daemon or a Dockerfile.
//
// An image has one layer, and the same files always give the same bytes: paths are sorted, times are zero, everything
// belongs to root, and of a file's mode counts only whether it can be executed. Files are streamed, not held in memory.
package image

import (
	"archive/tar"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
)

// Image is an image to be written. Its paths are absolute; the directories above them come by themselves, with mode
// 0755. Whatever is put at a path replaces what was put there before.
type Image struct {
	Reference  string            // what it is called by: [registry/]repository:tag
	Entrypoint []string          // the program that it runs, and the program's first arguments
	Command    []string          // further arguments, or what to run without an entrypoint: pods may name others
	Env        []string          // name=value
	User       string            // uid[:gid]; "" is root
	Labels     map[string]string // what people may want to know of it

	nodes map[string]node // path -> what is there
}

// node is what is at one path.
type node struct {
	kind byte   // tar.TypeDir, tar.TypeReg or tar.TypeSymlink
	mode int64  // of a directory or a symbolic link; a file's follows from its host's
	link string // target of a symbolic link
	host string // where the host has the file, or "" for one of the given text
	text string
}

// Directory puts a directory at path: with permission bits and fs.ModeSticky of mode.
func (i *Image) Directory(path string, mode fs.FileMode) {
	bits := int64(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	i.put(path, node{kind: tar.TypeDir, mode: bits})
}

// File puts the host's file at path, with mode 0755 if the host lets anybody execute it, else 0644. It is read when the
// image is written.
func (i *Image) File(path, host string) {
	i.put(path, node{kind: tar.TypeReg, host: host})
}

// Text puts a file with the text at path, with mode 0644.
func (i *Image) Text(path, text string) {
	i.put(path, node{kind: tar.TypeReg, text: text})
}

// Symlink puts a symbolic link to target at path.
func (i *Image) Symlink(path, target string) {
	i.put(path, node{kind: tar.TypeSymlink, mode: 0o777, link: target})
}

func (i *Image) put(path string, n node) {
	if i.nodes == nil {
		i.nodes = make(map[string]node)
	}
	i.nodes[path] = n
}

// tree returns all nodes with the directories above them, and their paths in an order that has each after the directory
// that it lies in.
func (i *Image) tree() (map[string]node, []string, error) {
	all := maps.Clone(i.nodes)
	for at := range i.nodes {
		if !path.IsAbs(at) || path.Clean(at) != at || at == "/" {
			return nil, nil, fmt.Errorf("%q in the image: not an absolute, clean path below /", at)
		}
		for above := path.Dir(at); above != "/"; above = path.Dir(above) {
			n, there := all[above]
			if !there {
				all[above] = node{kind: tar.TypeDir, mode: 0o755}
			} else if n.kind != tar.TypeDir {
				return nil, nil, fmt.Errorf("%q in the image: %q above it is not a directory", at, above)
			}
		}
	}
	return all, slices.Sorted(maps.Keys(all)), nil
}
