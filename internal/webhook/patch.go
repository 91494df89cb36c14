package webhook

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

const (
	driverName     = "secrets-store.csi.k8s.io"
	classAttribute = "secretProviderClass" // of the driver's volumes
)

// isOurs tells whether a volume is one that an earlier translation has made.
func isOurs(v corev1.Volume) bool {
	return v.CSI != nil && v.CSI.Driver == driverName && isClassName(v.CSI.VolumeAttributes[classAttribute])
}

// source returns what the pod says of the volume, with the name of its class. Without a class it is an empty directory.
func (v volume) source(class, tlsSecret string) corev1.VolumeSource {
	if class == "" {
		return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}
	}
	readOnly := true
	csi := &corev1.CSIVolumeSource{
		Driver: driverName, ReadOnly: &readOnly, VolumeAttributes: map[string]string{classAttribute: class},
	}
	if tlsSecret != "" {
		csi.NodePublishSecretRef = &corev1.LocalObjectReference{Name: tlsSecret}
	}
	return corev1.VolumeSource{CSI: csi}
}

// declare gives the pod a volume. One that has its name already is replaced: the name is that of the injector's, and its
// mounts mean what the injector puts there.
func (w *wish) declare(pod *corev1.Pod, name string, source corev1.VolumeSource) {
	wanted := corev1.Volume{Name: name, VolumeSource: source}
	for i, v := range pod.Spec.Volumes {
		if v.Name != name {
			continue
		}
		if !isOurs(v) && !equality.Semantic.DeepEqual(v, wanted) {
			w.warn("volume %s: the pod declares one of its own, which is replaced by the one with the secrets: remove it, or rename "+
				"it if it is for something else", name)
		}
		pod.Spec.Volumes[i] = wanted
		return
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, wanted)
}

// mount lets a container see the volumes.
func (w *wish) mount(c *corev1.Container, volumes []volume) {
	for _, v := range volumes {
		wanted := corev1.VolumeMount{Name: v.name, MountPath: v.where, ReadOnly: true}
		there := false
		var mounts []corev1.VolumeMount
		for _, m := range c.VolumeMounts {
			isPart := m.SubPath != "" || m.SubPathExpr != ""
			switch where := path.Clean(m.MountPath); {
			case where != v.where:
				if m.Name != v.name && isBelow(where, v.where) { // admitted, the container could never start
					w.deny("container %s: its mount %s lies below %s, where files can only be read, so that there is nothing to "+
						"mount it on: move it, or move the secrets with secret-volume-path",
						quote(c.Name), quote(m.MountPath), quote(v.where))
				}
				mounts = append(mounts, m)
			case there: // the same directory, written in another way
			case m.Name == v.name && isPart:
				there, mounts = true, append(mounts, m)
			case m.Name == v.name:
				m.ReadOnly = true
				there, mounts = true, append(mounts, m)
			default:
				w.warn("container %s: its mount of volume %s at %s gives way to the secrets: mount it elsewhere, or move the secrets "+
					"with secret-volume-path", quote(c.Name), quote(m.Name), quote(m.MountPath))
				there, mounts = true, append(mounts, wanted)
			}
		}
		if !there {
			mounts = append(mounts, wanted)
		}
		c.VolumeMounts = mounts
	}
}

// warnOfParts says what is true of all mounts of a part of a volume, and that few know.
func (w *wish) warnOfParts(c corev1.Container, volumes []volume) {
	for _, m := range c.VolumeMounts {
		for _, v := range volumes {
			if m.Name == v.name && (m.SubPath != "" || m.SubPathExpr != "") && len(v.files) > 0 {
				w.warn("container %s: its mount %s shows a part of volume %s as it was when the container started, and never new "+
					"credentials: mount the whole volume", quote(c.Name), quote(m.MountPath), v.name)
			}
		}
	}
}

// patch puts the volumes into a pod, which is a copy, and says in it that it is done.
func (w *wish) patch(pod *corev1.Pod, volumes []volume, classes map[string]Class, tlsSecret string) {
	for _, v := range volumes {
		w.declare(pod, v.name, v.source(classes[v.name].Name, tlsSecret))
	}
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; w.sees(*c) {
			w.mount(c, volumes)
		}
	}
	if w.initContainers {
		for i := range pod.Spec.InitContainers {
			w.mount(&pod.Spec.InitContainers[i], volumes)
		}
	}
	if !w.lifecycle.Frozen {
		for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
			w.warnOfParts(c, volumes)
		}
	}
	if w.shareProcesses.given {
		pod.Spec.ShareProcessNamespace = &w.shareProcesses.truth
	}
	pod.Annotations[statusKey] = injected
}

// checkPod denies what the annotations ask for and the pod cannot be, and warns of names that it does not have.
func (w *wish) checkPod(pod *corev1.Pod) {
	if w.shareProcesses.truth {
		switch {
		case pod.Spec.ShareProcessNamespace != nil && !*pod.Spec.ShareProcessNamespace:
			w.deny("%s: the pod itself says shareProcessNamespace: false: remove one of the two", w.shareProcesses.annotation)
		case pod.Spec.HostPID:
			w.deny("%s: the pod has hostPID: true, which excludes a process namespace of its own: remove one of the two", w.shareProcesses.annotation)
		}
	}
	if w.allContainers {
		return
	}
	sees := false
	for _, name := range w.containers {
		isOne := func(c corev1.Container) bool { return c.Name == name }
		switch {
		case slices.ContainsFunc(pod.Spec.Containers, isOne):
			sees = true
		case slices.ContainsFunc(pod.Spec.InitContainers, isOne):
			w.warn("%s: %s is an init container, and those see the secrets unless agent-pre-populate is false: take it off the list",
				w.containersBy, quote(name))
		default:
			w.warn("%s: the pod has no container %s: its containers are %s", w.containersBy, quote(name), later(func() string {
				var names []string
				for _, c := range pod.Spec.Containers {
					names = append(names, c.Name)
				}
				return quote(strings.Join(names, ", "))
			}))
		}
	}
	if !sees {
		w.warn("%s: names none of the pod's containers, so that none of them sees the secrets: name one, or remove it", w.containersBy)
	}
}
