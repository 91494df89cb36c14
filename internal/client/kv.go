package client

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// Templates name a secret as version 1 of the key/value engine has it, kv/app, also where version 2 has it as kv/data/app.
// consul-template therefore asks first which engine is behind every path. Here a path is asked for as it is given, and only
// when there is nothing, or nothing for this identity, is the engine looked up: a path that is right costs nothing.
//
// Writes are sent as they are given. A file that is rendered again must not write another version of a secret, and the
// arguments of a template's write are texts, of which version 2 takes none.

// readLeniently reads a GET or a LIST as templates mean it. A failure costs one look-up of the engine, and the secret is
// asked for once more if that names another path: after a "no" nothing has been made.
func (s *Session) readLeniently(ctx context.Context, src spec.Source) (Grant, error) {
	p, name := s.conn.pool, nameOf(src.Path)
	path := src.Path
	mount, known := p.versioned.find(s.conn.vault, name)
	if known && !isEngines(mount, src) {
		path = shim(mount, src)
	}
	grant, err := s.read(ctx, src, path)
	if isNo(err) {
		now, versioned, lookup := s.versionedMount(ctx, name)
		other := src.Path
		switch {
		case versioned:
			p.versioned.add(s.conn.vault, now)
			other = shim(now, src)
		case lookup != nil && !isNo(lookup): // nobody can tell just now
			other = path
		default:
			p.versioned.forget(s.conn.vault, mount)
		}
		if other != path {
			grant, err = s.read(ctx, src, other)
		}
	}
	if src.Method == "LIST" && KindOf(err) == Missing {
		return Grant{Source: src, Data: redact.NewBytes([]byte(`{"keys":[]}`)), Obtained: time.Now()}, nil
	}
	return grant, err
}

// isNo tells whether Vault says that there is nothing, or nothing for this identity. It does not tell apart by these what
// does not exist from what is not allowed, nor are they in doubt.
func isNo(err error) bool { return KindOf(err) == Denied || KindOf(err) == Missing }

// versionedMount asks which mount a path is behind, and tells whether that is version 2 of the key/value engine. Vault tells
// it to every token that may do anything there.
func (s *Session) versionedMount(ctx context.Context, name string) (mount string, versioned bool, err error) {
	q := question{op: opFindMount, method: http.MethodGet, path: "sys/internal/ui/mounts/" + name, token: s.token}
	err = s.conn.ask(ctx, q, func(a answer) *Error {
		var said struct {
			Data struct {
				Path    string `json:"path"`
				Type    string `json:"type"`
				Options struct {
					Version string `json:"version"`
				} `json:"options"`
			} `json:"data"`
		}
		if json.Unmarshal(a.body, &said) != nil {
			return &Error{Kind: Unavailable, Status: a.status, Err: nonsense(a)}
		}
		mount = strings.Trim(said.Data.Path, "/")
		if namespace := strings.Trim(s.conn.vault.Namespace, "/"); !isBelow(name, mount) && namespace != "" {
			mount = strings.TrimPrefix(mount, namespace+"/") // the namespace is a header of ours, and not in our paths
		}
		versioned = isBelow(name, mount) && said.Data.Type == "kv" && said.Data.Options.Version == "2"
		return nil
	})
	return mount, versioned, err
}

// nameOf is a path without its query.
func nameOf(path string) string {
	name, _, _ := strings.Cut(path, "?")
	return name
}

// isBelow tells whether a path is a mount, or below it.
func isBelow(name, mount string) bool {
	rest, ok := strings.CutPrefix(name, mount)
	return ok && mount != "" && (rest == "" || rest[0] == '/')
}

// below is the part of a source's path behind the mount, without a slash in front.
func below(mount string, src spec.Source) string {
	return strings.TrimLeft(strings.TrimPrefix(nameOf(src.Path), mount), "/")
}

// shim is the path by which version 2 of the key/value engine at mount has what a template means by the source: with data/
// behind the mount, or metadata/ for a LIST, unless it is there. The query stays. Nothing is cleaned: whether the path may be
// asked for is decided when it is.
func shim(mount string, src spec.Source) string {
	kind, rest := "data", below(mount, src)
	if src.Method == "LIST" {
		kind = "metadata"
	}
	switch head, _, more := strings.Cut(rest, "/"); {
	case more && (head == "data" || head == "metadata" || head == "subkeys"), rest == kind && src.Method == "LIST":
		return src.Path
	}
	name := strings.TrimSuffix(mount+"/"+kind+"/"+rest, "/")
	return name + strings.TrimPrefix(src.Path, nameOf(src.Path))
}

// isEngines tells whether version 2 may answer at the path itself, by more than that there is no such path: its own
// configuration, for one. What such a path gives must not depend on what is known of its mount.
func isEngines(mount string, src spec.Source) bool {
	rest := below(mount, src)
	switch head, _, more := strings.Cut(rest, "/"); head {
	case "delete", "undelete", "destroy":
		return more
	default:
		return rest == "config"
	}
}

// mostMounts is how many mounts are known at most. One that is forgotten costs a request to learn again.
const mostMounts = 1024

// mountKey is a mount of a Vault, without a slash at its end.
type mountKey struct{ address, namespace, mount string }

// versionedMounts are the mounts that are known to be of version 2 of the key/value engine, whoever asked.
type versionedMounts struct {
	mu    sync.Mutex
	known map[mountKey]struct{}
}

// find returns the known mount that a path is behind. Vault has no mount below another.
func (m *versionedMounts) find(v spec.Vault, name string) (mount string, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for end := range len(name) + 1 {
		if end < len(name) && name[end] != '/' {
			continue
		}
		if _, known := m.known[mountKey{v.Address, v.Namespace, name[:end]}]; known {
			return name[:end], true
		}
	}
	return "", false
}

// add notes a mount, in the place of any other if there are too many.
func (m *versionedMounts) add(v spec.Vault, mount string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := mountKey{v.Address, v.Namespace, mount}
	if _, known := m.known[key]; known {
		return
	}
	if m.known == nil {
		m.known = make(map[mountKey]struct{})
	}
	for other := range m.known {
		if len(m.known) < mostMounts {
			break
		}
		delete(m.known, other)
	}
	m.known[key] = struct{}{}
}

// forget forgets a mount, if it is known.
func (m *versionedMounts) forget(v spec.Vault, mount string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.known, mountKey{v.Address, v.Namespace, mount})
}
