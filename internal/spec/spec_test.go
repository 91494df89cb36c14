package spec

import "testing"

func TestVolumeName(t *testing.T) {
	for target, want := range map[string]string{
		"/k/pods/u/volumes/kubernetes.io~csi/secrets/mount": "secrets",
		"/k/pods/u/volumes/kubernetes.io~csi/secrets/other": "/k/pods/u/volumes/kubernetes.io~csi/secrets/other",
		"/k/pods/u/volumes/kubernetes.io~nfs/secrets/mount": "/k/pods/u/volumes/kubernetes.io~nfs/secrets/mount",
		"/mount": "/mount",
		"mount":  "mount",
		"":       "",
	} {
		if got := VolumeName(target); got != want {
			t.Errorf("%q: got %q, want %q", target, got, want)
		}
	}
}
