package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/observe"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// recordVersion changes when a provider of before must not read a record any more. A field that it may leave out of
// account can be added without, so that a provider can be rolled back.
const recordVersion = 1

// record is what the journal has of a volume. It holds secrets in the open: never print it.
type record struct {
	Version    int
	VersionKey []byte
	Mount      spec.Mount // without secrets, which follow
	JWT        string     `json:",omitempty"` // the newest service account token
	TLSKey     string     `json:",omitempty"`
	Written    bool       // the provider itself writes the files
	Ended      bool       `json:",omitempty"` // the pod has ended
	Holdings   []holdingRecord

	// Sources are what the files are made of; null if nothing is shown. Files may be made of none. A provider of before
	// templates wrote no list, and made the files of what the class names.
	Sources []spec.Source
}

// role is what a holding is to its volume.
type role string

const (
	roleShown    role = "shown"
	roleNext     role = "next"
	roleUnwanted role = "unwanted"
)

type holdingRecord struct {
	Role    role
	At      time.Time   // when it is to be given back, if it is unwanted
	Vault   *spec.Vault `json:",omitempty"` // if it is not the one of the class
	TLSKey  string      `json:",omitempty"` // that one's
	Session client.Record
	Token   term
	Behind  time.Time     `json:",omitzero"`
	Doubted bool          `json:",omitempty"`
	Grants  []grantRecord `json:",omitempty"`
}

type grantRecord struct {
	Source        spec.Source
	Data          []byte
	LeaseID       string        `json:",omitempty"`
	LeaseDuration time.Duration `json:",omitempty"`
	Renewable     bool          `json:",omitempty"`
	Warnings      []string      // not omitted: a file may show whether there were none, or no list
	Obtained      time.Time
	Term          term
	Overtaken     time.Time `json:",omitzero"` // the files are still made of the grant before, which ends then
}

// errOver is why nothing is written down any more.
var errOver = errors.New("the provider is ending")

// update writes down what the volume holds now. It is called after every change of that, before the change is relied on.
func (v *Volume) update() error {
	k := v.keeper
	if k.journal == nil {
		return nil
	}
	k.writing.RLock()
	defer k.writing.RUnlock()
	if k.over {
		return errOver
	}
	v.writing.Lock() // so that the newest record is the last one written
	defer v.writing.Unlock()
	if v.erased {
		return nil // nothing is held
	}
	content, err := json.Marshal(v.record()) //nolint:gosec // the journal is as secret as the volumes
	if err == nil {
		err = k.journal.write(nameOf(v.key), content)
	}
	v.mu.Lock()
	if v.unwritten = err != nil; v.unwritten {
		v.rewriting.after = time.Now().Add(jittered(rewriteAgain))
	}
	v.mu.Unlock()
	if err == nil {
		return nil
	}
	k.touch(v)
	k.config.JournalFailed()
	err = fmt.Errorf("the provider cannot write down what it holds, and takes nothing that it might forget: %w", err)
	k.log(v).Error("journal", observe.KeyError, err)
	return err
}

// rewriting is where the keeper stands with writing down what could not be.
type rewriting struct {
	busy  bool
	after time.Time // not before
}

// rewriteAgain is when the keeper tries to write a record once more.
const rewriteAgain = 30 * time.Second

// journaling is what errands to the journal have for a Vault.
const journaling = "journal"

// rewrites returns the errand of writing down what could not be, if it is time, and when to look again; zero for not before
// something happens. Without it the next instance would know nothing of what the last Mount showed. v.mu is held.
func (v *Volume) rewrites(now time.Time) (e *errand, again time.Time) {
	r := &v.rewriting
	switch {
	case !v.unwritten || r.busy:
		return nil, time.Time{}
	case r.after.After(now):
		return nil, r.after
	}
	return &errand{
		volume: v, vault: journaling, begin: v.departs(&r.busy),
		run: func(context.Context) error {
			err := v.update()
			v.mu.Lock()
			defer v.mu.Unlock()
			r.busy = false
			return err
		},
	}, time.Time{}
}

// rewrite writes down what an earlier update could not. A volume that shows something already goes on without: its poll
// gains nothing.
func (v *Volume) rewrite() error {
	v.mu.Lock()
	needed, mounted := v.unwritten, v.shown != nil
	v.mu.Unlock()
	if !needed {
		return nil
	}
	if err := v.update(); err != nil && !mounted {
		return err
	}
	return nil
}

// erase removes the record of a volume that holds nothing any more.
func (k *Keeper) erase(v *Volume) {
	if k.journal == nil {
		return
	}
	k.writing.RLock()
	defer k.writing.RUnlock()
	if k.over {
		return
	}
	v.writing.Lock()
	defer v.writing.Unlock()
	v.erased = true
	if err := k.journal.remove(nameOf(v.key)); err != nil {
		k.config.JournalFailed()
		k.log(v).Error("journal", observe.KeyError, err)
	}
}

// record is what the volume holds now.
func (v *Volume) record() record {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dirty = false
	r := record{
		Version: recordVersion, VersionKey: v.versionKey[:], Mount: v.mount, JWT: v.mount.Pod.Token.Reveal(),
		TLSKey: v.mount.Class.Vault.TLS.Key.Reveal(), Written: v.written, Ended: v.ended,
	}
	if v.shown != nil {
		r.Sources = append([]spec.Source{}, v.sources...) // no sources are a list, too
	}
	add := func(h *Holding, as role, at time.Time) {
		if h == nil {
			return
		}
		hr := h.record(as, at)
		if vault := h.session.Vault(); vault != v.mount.Class.Vault {
			hr.Vault, hr.TLSKey = &vault, vault.TLS.Key.Reveal()
		}
		r.Holdings = append(r.Holdings, hr)
	}
	add(v.shown, roleShown, time.Time{})
	add(v.next, roleNext, time.Time{})
	for h, d := range v.unwanted {
		add(h, roleUnwanted, d.at)
	}
	return r
}

func (h *Holding) record(as role, at time.Time) holdingRecord {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := holdingRecord{Role: as, At: at, Session: h.session.Record(), Token: h.token, Behind: h.behind, Doubted: h.doubted}
	if as == roleUnwanted {
		return r // its grants are nobody's any more
	}
	for source, g := range h.grants {
		r.Grants = append(r.Grants, grantRecord{
			Source: source, Data: g.Data.Reveal(), LeaseID: g.LeaseID, LeaseDuration: g.LeaseDuration, Renewable: g.Grant.Renewable,
			Warnings: g.Warnings, Obtained: g.Obtained, Term: g.term, Overtaken: h.overtaken[source],
		})
	}
	return r
}

// Resume opens the journal in a directory, which it makes with mode 0700 if it is missing, and takes over what it has:
// call it once, before anything else, and only while no other instance has it. A record that cannot be read is set aside
// and told of; it stops nothing. A directory that is not in memory is refused, unless onDisk.
func (k *Keeper) Resume(dir string, onDisk bool) error {
	j, err := openJournal(dir, onDisk)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	faults, err := j.read(func(name string, content []byte) error {
		v, err := k.restore(content)
		if err != nil {
			return err
		}
		if nameOf(v.key) != name {
			return errors.New("it is of another volume than its name says")
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		k.volumes[v.key] = v
		k.agenda[v] = time.Time{}
		return nil
	})
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for _, fault := range faults {
		k.config.JournalFailed()
		k.config.Log.Error("journal: what this record held ends with its tokens' TTL, and its pod's next mount gets something new",
			observe.KeyError, fault)
	}
	k.journal = j
	k.config.Log.Info("resumed", "journal", dir, observe.KeyCount, len(k.snapshot()))
	return nil
}

// restore makes a volume of its record. Its errors say nothing of the content.
func (k *Keeper) restore(content []byte) (*Volume, error) {
	var version struct{ Version int }
	if err := json.Unmarshal(content, &version); err != nil {
		return nil, fmt.Errorf("it is damaged (%d bytes)", len(content))
	}
	if version.Version != recordVersion {
		return nil, fmt.Errorf("it is of version %d, and this provider reads version %d", version.Version, recordVersion)
	}
	var r record
	if err := json.Unmarshal(content, &r); err != nil || r.Mount.Pod.UID == "" || len(r.VersionKey) != len(Volume{}.versionKey) {
		return nil, fmt.Errorf("it is damaged (%d bytes)", len(content))
	}
	r.Mount.Pod.Token = redact.New(r.JWT)
	r.Mount.Class.Vault.TLS.Key = redact.New(r.TLSKey)
	v := newVolume(k, r.Mount)
	copy(v.versionKey[:], r.VersionKey)
	v.written, v.ended = r.Written, r.Ended
	v.left, v.tried = time.Now(), time.Now() // a Mount may have been at work when the record was written
	for _, hr := range r.Holdings {
		h := v.restoreHolding(hr)
		switch hr.Role {
		case roleShown:
			v.shown, v.sources = h, r.Sources
			if v.sources == nil {
				v.sources = r.Mount.Class.Sources()
			}
		case roleNext:
			v.next = h
		case roleUnwanted:
			at := hr.At
			if latest := v.left.Add(v.grace()); at.After(latest) {
				at = latest // the node's clock has been set back since
			}
			v.doom(h, at)
		default:
			return nil, errors.New("it has a holding of an unknown role")
		}
	}
	return v, nil
}

func (v *Volume) restoreHolding(r holdingRecord) *Holding {
	vault := v.mount.Class.Vault
	if r.Vault != nil {
		vault = *r.Vault
		vault.TLS.Key = redact.New(r.TLSKey)
	}
	h := newHolding(v, v.keeper.config.Pool.Restore(vault, r.Session))
	life, now := v.mount.Class.Lifecycle, time.Now()
	h.token, h.behind, h.doubted = r.Token.restored(life, now), r.Behind, r.Doubted
	for _, g := range r.Grants {
		h.grants[g.Source] = &held{
			Grant: client.Grant{
				Source: g.Source, Data: redact.NewBytes(g.Data), LeaseID: g.LeaseID, LeaseDuration: g.LeaseDuration,
				Renewable: g.Renewable, Warnings: g.Warnings, Obtained: g.Obtained,
			},
			term: g.Term.restored(life, now),
		}
		if !g.Overtaken.IsZero() {
			h.overtaken[g.Source] = g.Overtaken
		}
		h.size += len(g.Data)
	}
	return h
}
