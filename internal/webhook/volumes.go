package webhook

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// Names of the volumes. People mount single files by the first one.
const (
	volumeName       = "vault-secrets"
	customVolumeName = "vault-secrets-custom-" // and a number
)

// volume is one volume of the pod.
type volume struct {
	name      string
	where     string // where it is mounted, absolute
	files     []file // sorted by their names, which are below where
	tokenFile string // the file of the Vault token, named as the others are; "" = none
}

// volumes distributes the files among volumes: one for each directory that is not below another one's, since nothing can
// be mounted into a directory that is only there to be read. The directory of all secrets always has one, even if nothing
// is in it. More than maxDirectories are denied, and not made.
func (w *wish) volumes(files []file) []volume {
	directories := []string{w.base}
	for _, f := range files {
		directories = append(directories, f.where)
	}
	slices.Sort(directories) // puts each before those below it
	var volumes []volume
	custom := 0
	for _, where := range slices.Compact(directories) {
		if slices.ContainsFunc(volumes, func(v volume) bool { return isBelow(where, v.where) }) {
			continue
		}
		if len(volumes) == maxDirectories {
			w.deny("%ssecret-volume-path-<name>: the secrets lie in more than %d directories, each a volume and a login of its own: put "+
				"some of them together", annotationPrefix, maxDirectories)
			break
		}
		v := volume{name: volumeName, where: where}
		switch {
		case where != w.base && !isBelow(w.base, where):
			v.name = customVolumeName + strconv.Itoa(custom)
			custom++
		case w.token:
			v.tokenFile = v.nameOf(w.base, "token")
		}
		for _, f := range files {
			if f.where == where || isBelow(f.where, where) {
				f.object.Name = v.nameOf(f.where, f.object.Name)
				v.files = append(v.files, f)
			}
		}
		slices.SortStableFunc(v.files, func(a, b file) int { return strings.Compare(a.object.Name, b.object.Name) })
		w.checkClashes(v)
		volumes = append(volumes, v)
	}
	return volumes
}

// isBelow tells whether a path is below a directory, both clean.
func isBelow(path, directory string) bool { return strings.HasPrefix(path, directory+"/") }

// nameOf names a file below a directory as the volume has it, at or above that directory.
func (v volume) nameOf(directory, file string) string {
	return strings.TrimPrefix(path.Join(directory, file), v.where+"/")
}

// checkClashes denies two files of one name, and a file where another one needs a directory.
func (w *wish) checkClashes(v volume) {
	first := make(map[string]string) // name -> who asks for it
	if v.tokenFile != "" {
		first[v.tokenFile] = annotationPrefix + "agent-inject-token"
	}
	var named []file
	for _, f := range v.files {
		if by, taken := first[f.object.Name]; taken {
			w.deny("%s: its file %s is that of %s, too: name another one with agent-inject-file-%s",
				f.by, quote(path.Join(v.where, f.object.Name)), by, f.by.name)
			continue
		}
		first[f.object.Name] = f.by.String()
		named = append(named, f)
	}
	for _, f := range named {
		for directory := path.Dir(f.object.Name); directory != "."; directory = path.Dir(directory) {
			if by, taken := first[directory]; taken {
				w.deny("%s: its file %s needs a directory where that of %s is a file: name another one with agent-inject-file-%s",
					f.by, quote(path.Join(v.where, f.object.Name)), by, f.by.name)
			}
		}
	}
	for directory := path.Dir(v.tokenFile); directory != "."; directory = path.Dir(directory) {
		if by, taken := first[directory]; taken {
			w.deny("%sagent-inject-token: its file %s needs a directory where that of %s is a file: name the other one with "+
				"agent-inject-file-<name>", annotationPrefix, quote(path.Join(v.where, v.tokenFile)), by)
		}
	}
}
