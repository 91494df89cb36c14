package image

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What the image holds is enough to run the program.
func TestProgramRuns(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may change the root directory")
	}
	i := &Image{Reference: "example.org/ls:1"}
	if err := i.Program(t.Context(), "/bin/list", "/bin/ls"); err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	if err := i.writeLayer(&layer); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	extract := exec.CommandContext(t.Context(), "tar", "-x", "-C", root)
	extract.Stdin = &layer
	if out, err := extract.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), "chroot", root, "/bin/list", "/bin").CombinedOutput()
	if got, want := string(out), "list\n"; err != nil || got != want {
		t.Errorf("got %q, error %v, want %q", got, err, want)
	}
}

func TestProgramTellsWhatIsWrong(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho it runs, but is no program of its own\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		put  func(*Image) error
		want string
	}{
		"missing": {
			func(i *Image) error { return i.Program(t.Context(), "/x", "/no/such/program") },
			`program "/no/such/program": open /no/such/program: no such file`,
		},
		"script": {
			func(i *Image) error { return i.Program(t.Context(), "/x", script) },
			`script": bad magic number`,
		},
		"not static": {
			func(i *Image) error { return i.StaticProgram("/x", "/bin/ls") },
			`program "/bin/ls": it needs "/lib`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := &Image{}
			if err := row.put(i); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got error %v, want one with %q", err, row.want)
			}
			if len(i.nodes) != 0 {
				t.Errorf("the image holds %v, want nothing", i.nodes)
			}
		})
	}
}

func TestParseList(t *testing.T) {
	got, err := parseList("\tlinux-vdso.so.1 (0x00007ffd)\n" +
		"\tlibpq.so.5 => /lib/x86_64-linux-gnu/libpq.so.5 (0x00007f4d)\n" +
		"\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f4c)\n" +
		"\t/lib64/ld-linux-x86-64.so.2 (0x00007f4e)\n")
	want := []string{
		"/lib/x86_64-linux-gnu/libpq.so.5", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, error %v, want %q", got, err, want)
	}

	_, err = parseList("\tlibpq.so.5 => not found\n")
	if want := `library "libpq.so.5" is not found`; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %q", err, want)
	}
}
