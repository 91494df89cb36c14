package lease

import (
	"fmt"
	"maps"
	"slices"

	"leasehold/internal/spec"
)

// maxSize is how many bytes the grants of one volume may have. Its files may have 1 MiB, but a file may be one small
// field of a large answer.
const maxSize = 8 << 20

// What volumes hold lies in memory, and once more in the journal, and the memory is one of the node's for all of its volumes.
// A volume may have freelyHeld bytes whatever others have, which is far more than ordinary secrets have. What goes beyond comes
// from a store that all of them share: otherwise some pods with large secrets could end the provider of all pods. An answer
// of smallAnswer is always kept, such as new credentials for a pod that has large secrets as well.
const (
	freelyHeld  = 256 << 10
	mostHeld    = 64 << 20
	smallAnswer = 4 << 10
)

// errNodeFull is why a large answer cannot be held. It passes when pods end.
var errNodeFull = fmt.Errorf("the volumes of this node hold large secrets of %d MiB already, and there is no memory for more: "+
	"read smaller secrets, or wait until other pods have ended", mostHeld>>20)

// admit keeps a grant if the volume and the node have room for it.
func (h *Holding) admit(source spec.Source, fresh *held) error {
	k := h.volume.keeper
	k.growing.Lock()
	defer k.growing.Unlock()
	h.mu.Lock()
	before, after := h.size, h.sizeWith(source, fresh)
	h.mu.Unlock()
	if more := beyond(after) - beyond(before); more > smallAnswer && more > mostHeld-k.held() {
		return errNodeFull
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keep(source, fresh)
}

// sizeWith is how many bytes the grants have with this one in the place of the source's old one; h.mu is held.
func (h *Holding) sizeWith(source spec.Source, fresh *held) int {
	size := h.size + len(fresh.Data.Reveal())
	if old, found := h.grants[source]; found {
		size -= len(old.Data.Reveal())
	}
	return size
}

// beyond is how much of a holding's bytes comes from what all volumes share.
func beyond(size int) int { return max(0, size-freelyHeld) }

// held is how much of it is taken.
func (k *Keeper) held() int {
	total := 0
	for _, v := range k.snapshot() {
		for _, h := range v.holdings() {
			h.mu.Lock()
			total += beyond(h.size)
			h.mu.Unlock()
		}
	}
	return total
}

// holdings returns all that the volume holds, what is to be given back included.
func (v *Volume) holdings() []*Holding {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := slices.AppendSeq([]*Holding{v.shown, v.next}, maps.Keys(v.unwanted))
	return slices.DeleteFunc(all, func(h *Holding) bool { return h == nil })
}
