package image_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"leasehold/test/cluster/image"
)

// sample is an image with one of everything. Its files are in a directory of the host.
func sample(t *testing.T) (i *image.Image, directory string) {
	t.Helper()
	directory = t.TempDir()
	write(t, filepath.Join(directory, "program"), "#!/bin/sh\n", 0o700)
	write(t, filepath.Join(directory, "data"), "data", 0o600)
	i = &image.Image{
		Reference:  "example.org/sample:1",
		Entrypoint: []string{"/bin/program"},
		Command:    []string{"-x"},
		Env:        []string{"PATH=/bin", "A=b=c"},
		User:       "1000:1000",
		Labels:     map[string]string{"b": "2", "a": "1"},
	}
	i.Symlink("/bin/alias", "program")
	i.File("/bin/program", filepath.Join(directory, "program"))
	i.File("/usr/share/data", filepath.Join(directory, "data"))
	i.Directory("/tmp", fs.ModeSticky|0o777)
	i.Text("/etc/passwd", "root:x:0:0::/:\n")
	return i, directory
}

func TestWriteReadsBack(t *testing.T) {
	i, _ := sample(t)
	archive := untar(t, bytes.NewReader(written(t, i)))

	if got, want := archive[0].Name, "manifest.json"; got != want {
		t.Errorf("the first entry is %q, want %q", got, want)
	}
	manifest := only(t, decode[[]struct {
		Config           string
		RepoTags, Layers []string
	}](t, find(t, archive, "manifest.json").content))
	if got, want := manifest.RepoTags, []string{"example.org/sample:1"}; !slices.Equal(got, want) {
		t.Errorf("references are %q, want %q", got, want)
	}

	raw := find(t, archive, manifest.Config).content
	if got, want := manifest.Config, fmt.Sprintf("%x.json", sha256.Sum256(raw)); got != want {
		t.Errorf("the configuration is called %q, want its digest %q", got, want)
	}
	config := decode[struct {
		OS, Architecture string
		Created          time.Time
		Config           struct {
			Entrypoint, Cmd, Env []string
			User                 string
			Labels               map[string]string
		}
		RootFS struct {
			Type    string
			DiffIDs []string `json:"diff_ids"`
		}
	}](t, raw)
	layer := find(t, archive, only(t, manifest.Layers)).content
	if got, want := only(t, config.RootFS.DiffIDs), fmt.Sprintf("sha256:%x", sha256.Sum256(layer)); got != want {
		t.Errorf("the layer's digest is said to be %s, want %s", got, want)
	}
	settings := "{[/bin/program] [-x] [PATH=/bin A=b=c] 1000:1000 map[a:1 b:2]}"
	if got := fmt.Sprint(config.Config); got != settings {
		t.Errorf("settings are %s, want %s", got, settings)
	}
	if got, want := config.OS, "linux"; got != want {
		t.Errorf("operating system is %q, want %q", got, want)
	}

	var listed []string
	for _, e := range untar(t, bytes.NewReader(layer)) {
		listed = append(listed, fmt.Sprintf("%c %04o %s %q%s", e.Typeflag, e.Mode, e.Name, e.content, e.Linkname))
		if e.Uid != 0 || e.Gid != 0 || e.Uname != "" || e.Gname != "" || !e.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%q belongs to %d:%d (%q, %q) since %v, want root and no time",
				e.Name, e.Uid, e.Gid, e.Uname, e.Gname, e.ModTime)
		}
	}
	want := []string{
		`5 0755 bin/ ""`,
		`2 0777 bin/alias ""program`,
		`0 0755 bin/program "#!/bin/sh\n"`,
		`5 0755 etc/ ""`,
		`0 0644 etc/passwd "root:x:0:0::/:\n"`,
		`5 1777 tmp/ ""`,
		`5 0755 usr/ ""`,
		`5 0755 usr/share/ ""`,
		`0 0644 usr/share/data "data"`,
	}
	if !slices.Equal(listed, want) {
		t.Errorf("the layer holds\n%s\nwant\n%s", strings.Join(listed, "\n"), strings.Join(want, "\n"))
	}
}

// The same files give the same bytes, whenever they were made, by whom, and in which order they were put.
func TestWriteIsDeterministic(t *testing.T) {
	one, _ := sample(t)
	other, directory := sample(t)
	long := "/" + strings.Repeat("long/", 40) + "path"
	one.Text(long, "x")
	one.Text("/a", "x")
	other.Text("/a", "x")
	other.Text(long, "x")
	data := filepath.Join(directory, "data")
	if err := os.Chmod(data, 0o664); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(data, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(written(t, one), written(t, other)) {
		t.Error("two images of the same files differ")
	}
}

func TestWriteTellsWhatIsWrong(t *testing.T) {
	for name, row := range map[string]struct {
		put  func(i *image.Image)
		want string
	}{
		"missing file":  {func(i *image.Image) { i.File("/x", "/no/such/file") }, `open /no/such/file: no such file`},
		"directory":     {func(i *image.Image) { i.File("/x", "/usr") }, `read "/usr": not a regular file`},
		"relative path": {func(i *image.Image) { i.Text("x", "") }, `"x" in the image: not an absolute, clean path`},
		"unclean path":  {func(i *image.Image) { i.Text("/x/../y", "") }, `"/x/../y" in the image: not an absolute, clean`},
		"root":          {func(i *image.Image) { i.Directory("/", 0o700) }, `"/" in the image: not an absolute, clean path`},
		"below a file":  {func(i *image.Image) { i.Text("/etc/passwd/x", "") }, `"/etc/passwd" above it is not a directory`},
		"below a link":  {func(i *image.Image) { i.Text("/bin/alias/x", "") }, `"/bin/alias" above it is not a directory`},
	} {
		t.Run(name, func(t *testing.T) {
			i, _ := sample(t)
			row.put(i)
			err := i.Write(io.Discard)
			if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), i.Reference) {
				t.Errorf("got error %v, want one with %q and %q", err, i.Reference, row.want)
			}
		})
	}
}

// A file that changes between the digest and the content would make an image that no one can import.
func TestWriteNoticesAChange(t *testing.T) {
	for name, content := range map[string]string{
		"same size": "DATA",
		"longer":    strings.Repeat("long", 1000),
		"shorter":   "",
	} {
		t.Run(name, func(t *testing.T) {
			i, directory := sample(t)
			// What is written first tells that the digests are known.
			first := writerFunc(func([]byte) { write(t, filepath.Join(directory, "data"), content, 0o600) })
			err := i.Write(first)
			if want := "a file changed while it was read"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got error %v, want %q", err, want)
			}
		})
	}
}

func TestUpdate(t *testing.T) {
	i, directory := sample(t)
	out := t.TempDir()
	file := filepath.Join(out, "sample.tar")
	update := func(want bool) {
		t.Helper()
		got, err := i.Update(file)
		if err != nil || got != want {
			t.Fatalf("it was written: %v, error %v, want %v", got, err, want)
		}
		if there, err := os.ReadFile(file); err != nil || !bytes.Equal(there, written(t, i)) {
			t.Fatalf("the file is not the image, error %v", err)
		}
	}
	update(true)
	update(false)

	// A new time alone changes nothing, and an old one hides nothing.
	data := filepath.Join(directory, "data")
	if err := os.Chtimes(data, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	update(false)
	write(t, data, "DATA", 0o600)
	if err := os.Chtimes(data, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	update(true)
	i.Reference = "example.org/sample:2"
	update(true)
	i.Labels["a"] = "2"
	update(true)
	write(t, file, "not a tar", 0o600)
	update(true)

	// After a failure the old one is still there, and nothing else.
	before := written(t, i)
	i.File("/x", filepath.Join(directory, "missing"))
	if _, err := i.Update(file); err == nil {
		t.Error("no error for a missing file")
	}
	if there, err := os.ReadFile(file); err != nil || !bytes.Equal(there, before) {
		t.Errorf("the old image is not there any more, error %v", err)
	}
	entries, err := os.ReadDir(out)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, error %v, want the tar alone", entries, err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), fs.FileMode(0o644); got != want {
		t.Errorf("the tar's mode is %v, want %v", got, want)
	}
}

// entry is one entry of a tar, with its content.
type entry struct {
	*tar.Header
	content []byte
}

func untar(t *testing.T, r io.Reader) []entry {
	t.Helper()
	var all []entry
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entry{header, content})
	}
}

func find(t *testing.T, entries []entry, name string) entry {
	t.Helper()
	for _, e := range entries {
		if e.Name == name {
			return e
		}
	}
	t.Fatalf("there is no entry %q", name)
	return entry{}
}

func decode[T any](t *testing.T, raw []byte) T {
	t.Helper()
	var value T
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatalf("decode %s: %v", raw, err)
	}
	return value
}

func only[T any](t *testing.T, all []T) T {
	t.Helper()
	if len(all) != 1 {
		t.Fatalf("got %v, want exactly one", all)
	}
	return all[0]
}

func written(t *testing.T, i *image.Image) []byte {
	t.Helper()
	var buffer bytes.Buffer
	if err := i.Write(&buffer); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func write(t *testing.T, file, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// writerFunc is told of everything that is written, and drops it.
type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
