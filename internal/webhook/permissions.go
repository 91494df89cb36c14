package webhook

import (
	"io/fs"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// reader is a container that sees the files, as far as its permission to read them goes.
type reader struct {
	name      string
	isRoot    bool // its user is known to be root
	ofGroup   bool // it is known to be in root's group
	runsAsWho string
}

// sees tells whether a container gets the mounts.
func (w *wish) sees(c corev1.Container) bool {
	return w.allContainers || slices.Contains(w.containers, c.Name)
}

// readers returns the containers that see the files.
func (w *wish) readers(pod *corev1.Pod) []reader {
	var readers []reader
	for _, c := range pod.Spec.Containers {
		if w.sees(c) {
			readers = append(readers, readerOf(pod, c))
		}
	}
	if w.initContainers {
		for _, c := range pod.Spec.InitContainers {
			readers = append(readers, readerOf(pod, c))
		}
	}
	return readers
}

// readerOf takes a container's user and groups from its own security context, or else from the pod's. A user that neither
// names is the image's, which nobody knows here: it is taken for somebody else than root.
func readerOf(pod *corev1.Pod, c corev1.Container) reader {
	r := reader{name: c.Name, runsAsWho: "as a user that the pod does not name"}
	var user, group *int64
	if all := pod.Spec.SecurityContext; all != nil {
		user, group = all.RunAsUser, all.RunAsGroup
		r.ofGroup = slices.Contains(all.SupplementalGroups, 0) || (all.FSGroup != nil && *all.FSGroup == 0)
	}
	if own := c.SecurityContext; own != nil {
		if own.RunAsUser != nil {
			user = own.RunAsUser
		}
		if own.RunAsGroup != nil {
			group = own.RunAsGroup
		}
	}
	if user != nil {
		r.isRoot, r.runsAsWho = *user == 0, "as another user than root"
	}
	r.ofGroup = r.ofGroup || (group != nil && *group == 0)
	return r
}

// canRead tells whether a container can read a file of root's and of his group's.
func (r reader) canRead(mode fs.FileMode) bool {
	return r.isRoot || mode&0o004 != 0 || (r.ofGroup && mode&0o040 != 0)
}

// permissions returns the mode of a secret's file: the one that is asked for, unless a container that sees the file could
// not read it. Then the policy decides. Nobody writes into the volume, whatever the mode says.
func (p Policy) permissions(w *wish, s *secret, readers []reader) fs.FileMode {
	i := slices.IndexFunc(readers, func(r reader) bool { return !r.canRead(s.permissions) })
	if i < 0 {
		return s.permissions
	}
	reason := "the file is root's, and container " + quote(readers[i].name) + ", which runs " + readers[i].runsAsWho +
		", could not read it"
	switch p.Permissions {
	case Strict:
		w.deny("%s: %s: write 0444, or run the container as root", s.mode.annotation, reason)
		return s.permissions
	case Compat:
	}
	wider := fs.FileMode(0o444)
	if s.permissions&0o111 != 0 {
		wider = 0o555
	}
	w.warn("%s: %s with %04o: it gets %04o", s.mode.annotation, reason, uint32(s.permissions), uint32(wider))
	return wider
}
