package provider

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"leasehold/internal/spec"
)

// calls remembers what calls of the driver were parsed to. A poll says the same as the poll before it, word for word, until
// kubelet has another service account token; to parse it anew would take longer than to answer it.
type calls struct {
	parsed recent[digest, spec.Mount]
}

// parse returns what parse makes of a request, or what it has made of it before. parse must say the same each time. What it
// refuses is not remembered.
func (c *calls) parse(r spec.Request, parse func(spec.Request) (spec.Mount, error)) (spec.Mount, error) {
	said := digestOfCall(r)
	if m, found := c.parsed.find(said); found {
		return m, nil
	}
	m, err := parse(r)
	if err == nil {
		c.parsed.put(said, m)
	}
	return m, err
}

// digest stands for something that may be long, or secret. Nobody can make it that of something else.
type digest [sha256.Size]byte

// digestOfCall tells calls apart that differ in anything.
func digestOfCall(r spec.Request) digest {
	h := sha256.New()
	for _, part := range []string{r.Attributes, r.Secrets, r.Permission, r.TargetPath} {
		add(h, []byte(part))
	}
	return digest(h.Sum(nil))
}

// add adds bytes, and where they end.
func add(h hash.Hash, part []byte) {
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(part)))
	_, _ = h.Write(length[:]) // it never fails
	_, _ = h.Write(part)
}
