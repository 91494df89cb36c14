package oracle

import (
	"errors"
	"time"

	"leasehold/internal/render"
	"leasehold/internal/spec"
)

// since is when the volume has logged in and read what it shows.
var since = time.Date(2026, time.March, 4, 5, 6, 7, 0, time.UTC)

// pod is who mounts.
var pod = spec.Pod{Namespace: "shop", Name: "web-0", UID: "4d7fca41-6f2b-4a12-9d0c-1ea0a6b1a2f3", ServiceAccount: "web"}

// errUnparsed is how a template fails that is refused before it is executed.
var errUnparsed = errors.New("refused by the parser")

// ours is Leasehold.
type ours struct {
	renderer *render.Renderer
	vault    vault
}

func newOurs(v vault) *ours { return &ours{render.New(), v} }

// render renders a template as a volume of one object.
func (o *ours) render(t spec.Template) (string, error) {
	if err := o.renderer.Check(t); err != nil {
		return "", errors.Join(errUnparsed, err)
	}
	files, _, err := o.renderer.Files(render.Volume{
		Objects: []spec.Object{{Name: "file", Template: t, Encoding: spec.UTF8, Mode: 0o644}},
		Pod:     pod, Since: since, Read: o.vault.read,
	})
	if err != nil {
		return "", err
	}
	return string(files[0].Contents), nil
}
