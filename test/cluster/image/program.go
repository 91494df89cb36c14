package image

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// Program puts a program of the host at path, and all that it needs to run: its loader and its shared libraries, at the
// paths at which the host has them. What a program loads only while it runs, such as plugins, does not come with it.
func (i *Image) Program(ctx context.Context, path, host string) error {
	needed, err := libraries(ctx, host)
	if err != nil {
		return fmt.Errorf("program %q: %w", host, err)
	}
	i.File(path, host)
	for _, library := range needed {
		i.File(library, library)
	}
	return nil
}

// StaticProgram puts a program of the host at path. It fails if the program needs a loader: in an image that has none
// it would not start, and the error would not tell why.
func (i *Image) StaticProgram(path, host string) error {
	loader, err := loader(host)
	if err != nil {
		return fmt.Errorf("program %q: %w", host, err)
	}
	if loader != "" {
		return fmt.Errorf("program %q: it needs %q: build it with CGO_ENABLED=0", host, loader)
	}
	i.File(path, host)
	return nil
}

// libraries returns the paths of a program's loader and shared libraries; none for a static program.
func libraries(ctx context.Context, program string) ([]string, error) {
	loader, err := loader(program)
	if err != nil || loader == "" {
		return nil, err
	}
	// The loader itself knows where it finds what. As in the image, no variable tells it other places.
	list := exec.CommandContext(ctx, loader, "--list", program)
	list.Env = []string{}
	out, err := list.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return nil, fmt.Errorf("list the libraries with %q: %w", loader, err)
	}
	found, err := parseList(string(out))
	return append(found, loader), err
}

// loader returns the path of the program's loader, or "" if it needs none.
func loader(program string) (string, error) {
	file, err := elf.Open(program)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			path, err := io.ReadAll(segment.Open())
			return strings.TrimRight(string(path), "\x00"), err
		}
	}
	return "", nil
}

// parseList reads what a loader lists, one library a line: "NAME => PATH (ADDRESS)", or "PATH (ADDRESS)" for one that
// is needed by its path, or "NAME (ADDRESS)" for the one that the kernel provides, or "NAME => not found".
func parseList(list string) ([]string, error) {
	var paths []string
	for line := range strings.Lines(list) {
		name, path, found := strings.Cut(strings.TrimSpace(line), " => ")
		if !found {
			name, path = "", name
		}
		if path == "not found" {
			return nil, fmt.Errorf("library %q is not found", name)
		}
		if path, _, _ = strings.Cut(path, " ("); strings.HasPrefix(path, "/") {
			paths = append(paths, path)
		}
	}
	return paths, nil
}
