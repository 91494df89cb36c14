package webhook

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The bounds of a pod that is translated. Mutating webhooks come before the API server's own look at a pod, so that what
// is here may be anything that fits into a request, 3 MiB as a rule. Whoever may create pods may send it, and the
// admissions of all others wait behind it. So a pod that is beyond these bounds is denied before any time is spent on it;
// within them a translation takes well below a second, whatever it says.
const (
	maxAnnotations = 256 << 10 // bytes of all annotations, keys and values: the API server's own bound
	maxKey         = 63        // bytes of a key behind the prefix: likewise
	maxContainers  = 250       // with init containers
	maxVolumes     = 500       // of the pod
	maxMounts      = 2000      // of all containers

	// maxPath is what a path in a container may have: long enough for any, and short enough to look at all its parents.
	maxPath = 1024

	// maxDirectories is in how many separate directories the secrets of a pod may lie. Each of them is a volume and a class,
	// and so a login of its own and an object that the webhook makes, which nobody has counted against the pod's author.
	maxDirectories = 32
)

// beyond returns which bounds a pod breaks; nil if none.
func beyond(pod *corev1.Pod) Denial {
	f := &findings{}
	size := 0
	for _, key := range slices.Sorted(maps.Keys(pod.Annotations)) {
		size += len(key) + len(pod.Annotations[key])
		if name, ok := strings.CutPrefix(key, annotationPrefix); ok && len(name) > maxKey {
			f.deny("%s: the key has %d bytes behind its slash, and the API server takes %d at most: shorten it", quote(key), len(name), maxKey)
		}
	}
	few := func(what string, n, most int) {
		if n > most {
			f.deny("%s: the pod has %d %s, and those of more than %d are not looked at: divide it", injectKey, n, what, most)
		}
	}
	if size > maxAnnotations {
		f.deny("%s: the pod has %d bytes of annotations, and the API server takes %d at most: shorten them", injectKey, size, maxAnnotations)
	}
	added := 0 // volumes that an earlier translation may have added, and mounts of a container: a second one must not mind
	if pod.Annotations[statusKey] == injected {
		added = maxDirectories
	}
	few("containers", len(pod.Spec.Containers)+len(pod.Spec.InitContainers), maxContainers)
	few("volumes", len(pod.Spec.Volumes), maxVolumes+added)
	mounts := 0
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		mounts += len(c.VolumeMounts)
	}
	few("mounts", mounts, maxMounts+added*maxContainers)
	return f.denials
}
