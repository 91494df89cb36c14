#!/usr/bin/env bats
# Kubelet's directory is where E2E_KUBELET_ROOT says; the suite's test bed can move it:
#
#	build/bin/cluster run -kubelet-root-dir=/var/lib/kubelet-elsewhere -- test/bats/run kubelet-root.bats

load lib/all

@test "with kubelet's directory where it is here, pods get their files and polls go on" {
	grant kroot
	credentials kroot | class kroot
	pod root kroot
	starts 60 root
	uid=$(get pods/root | jq -r .metadata.uid)
	volume=$E2E_KUBELET_ROOT/pods/$uid/volumes/kubernetes.io~csi/secrets/mount
	contains "mounts of the node" "$(on_node 'grep -F "$1" /proc/1/mounts' "$uid")" "tmpfs $volume tmpfs"
	user=$(queries root)
	polls_go_on 3
	same "who the pod is" "$(queries root)" "$user"
	has_users kroot 1
	kept root
}
