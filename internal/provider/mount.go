package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"leasehold/internal/client"
	"leasehold/internal/lease"
	"leasehold/internal/observe"
	"leasehold/internal/render"
	"leasehold/internal/spec"
)

// Mount answers with the files of a volume. The first call for a volume logs in and reads; later ones are answered
// from what is held, unless something of it is due. What a failed Mount has gained is kept for kubelet's next try.
//
// Its errors are gRPC status errors with codes that kubelet takes as final, and name pod, object, Vault path, cause
// and cure.
func (s *Server) Mount(ctx context.Context, request *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	start := time.Now()
	mount, err := s.calls.parse(spec.Request{
		Attributes: request.GetAttributes(),
		Secrets:    request.GetSecrets(),
		Permission: request.GetPermission(),
		TargetPath: request.GetTargetPath(),
	}, s.config.Operator.Parse)
	var a answer
	if err == nil {
		a, err = s.answer(ctx, mount)
	}
	log := s.config.Log
	if a.first || err != nil { // of a poll there is nothing to tell
		log = log.With(observe.KeyPod, mount.Pod.Namespace+"/"+mount.Pod.Name, observe.KeyPodUID, mount.Pod.UID, observe.KeyVolume, mount.Volume)
		for _, name := range mount.Ignored {
			log.Warn("the SecretProviderClass has a parameter that means nothing to Leasehold", observe.KeyParameter, name)
		}
	}
	if err != nil {
		failure := describe(mount, err)
		if panicked := (*lease.PanicError)(nil); errors.As(err, &panicked) {
			log = log.With("stack", panicked.Stack)
		}
		log.Error("mount failed", observe.KeyError, failure.Message(), observe.KeyCode, failure.Code().String())
		return nil, failure.Err()
	}
	if a.first {
		log.Info("mounted", observe.KeyRole, mount.Class.Vault.Role, observe.KeyCount, len(a.files), observe.KeyDuration, time.Since(start))
	}

	response := &v1alpha1.MountResponse{
		Files:         forDriver(a.files),
		ObjectVersion: make([]*v1alpha1.ObjectVersion, len(a.files)),
	}
	for i, f := range a.files {
		response.ObjectVersion[i] = &v1alpha1.ObjectVersion{Id: f.Path, Version: render.Version(a.versionKey, f)}
	}
	return response, nil
}

// answer is what a Mount answers with.
type answer struct {
	files      []render.File
	versionKey [32]byte
	first      bool // the volume showed nothing before
}

// answer makes the volume's files: all of them, or none and an error that has every failure in it. Where the provider may
// write, they are in the volume before the driver hears of them, and it finds nothing to change.
func (s *Server) answer(ctx context.Context, mount spec.Mount) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.MountTimeout, slowError{s.config.MountTimeout})
	defer cancel()

	volume, err := s.config.Keeper.Open(ctx, mount)
	if err != nil {
		return answer{}, fmt.Errorf("another Mount of this volume is still at work: %w", err)
	}
	defer volume.Close()
	made, err := s.files(ctx, volume)
	if err != nil {
		return answer{}, err
	}
	written, err := s.publish(volume, made.files)
	if err != nil {
		return answer{}, err
	}
	volume.Written(written)
	first := volume.Show(made.holding, made.grants)
	return answer{made.files, volume.VersionKey(), first}, nil
}

// errNotWritten is why a volume could not be filled between Mounts.
var errNotWritten = errors.New("the volume is not where the provider may write: the driver's next poll brings the files")

// Refill does for a volume what a Mount does between parsing and answering: whatever is due is read anew and written.
// The caller has the volume's turn. When it fails, the volume shows what it showed before.
func (s *Server) Refill(ctx context.Context, volume *lease.Volume) error {
	made, err := s.files(ctx, volume)
	if err != nil {
		return err
	}
	written, err := s.publish(volume, made.files)
	if err != nil {
		return err
	}
	volume.Written(written)
	if !written {
		return errNotWritten // so the files are still made of what they were
	}
	volume.Show(made.holding, made.grants)
	return nil
}

// errOldLogin is why a frozen volume cannot have what was added to its class.
var errOldLogin = errors.New("the class says rotation: off, so the volume keeps its login, and by now the class names another Vault " +
	"or role, which this is to be read with: restart the pod, or take the object back")

// made is the files of a volume, and what they are made of.
type made struct {
	files   []render.File
	holding *lease.Holding
	grants  []client.Grant // of the holding: what the files are made of
}

// files makes the files of a volume. What is frozen stays as it is, whatever is due; only what it never had is read, if
// the class still says the same of Vault and login.
func (s *Server) files(ctx context.Context, volume *lease.Volume) (made, error) {
	mount := volume.Mount()
	holding, frozen := volume.Frozen()
	if !frozen {
		var err error
		if holding, err = volume.Holding(ctx); err != nil {
			return made{}, err
		}
	}
	named := mount.Class.Sources()
	files, grants, err := s.renderer.Files(render.Volume{
		Objects: mount.Class.Objects, Pod: mount.Pod, Since: holding.Since(), InTurn: holding.IsQuiet(named),
		Read: func(source spec.Source) (client.Grant, error) {
			source = shared(source, named)
			if frozen {
				if grant, ok := holding.Remembered(source); ok {
					return grant, nil
				}
				if holding.Vault() != mount.Class.Vault {
					return client.Grant{}, errOldLogin
				}
			}
			return holding.Read(ctx, source)
		},
	})
	if err != nil {
		return made{}, err
	}
	if name := mount.Class.Lifecycle.TokenFile; name != "" {
		files = append(files, render.File{Path: name, Mode: mount.Mode, Contents: []byte(holding.Token().Reveal())})
		slices.SortFunc(files, func(a, b render.File) int { return cmp.Compare(a.Path, b.Path) })
	}
	return made{files, holding, grants}, nil
}

// shared returns the source that answers for one that a template asks for: the same as an object of the class names it, if
// one does, so that the two are one request and one lease. That it is not lenient matters to nobody: when it fails, so do
// the files.
func shared(source spec.Source, named []spec.Source) spec.Source {
	strict := source
	strict.Lenient = false
	if slices.Contains(named, strict) {
		return strict
	}
	return source
}

// publish writes the files where the provider may.
func (s *Server) publish(volume *lease.Volume, files []render.File) (written bool, err error) {
	if s.config.Publisher == nil {
		return false, nil
	}
	mount := volume.Mount()
	return s.config.Publisher.Publish(mount.Volume, mount.Pod.UID, files)
}

// slowError is why a Mount stops waiting for Vault.
type slowError struct{ waited time.Duration }

func (e slowError) Error() string {
	return fmt.Sprintf("no answer within %s; the request goes on, and kubelet's next try finds its answer", e.waited)
}

// Is makes a slowError a kind of context.DeadlineExceeded.
func (e slowError) Is(target error) bool { return target == context.DeadlineExceeded }
