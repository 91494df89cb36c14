package provider

import (
	"context"
	"errors"
	"fmt"
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
	mount, err := s.config.Operator.Parse(spec.Request{
		Attributes: request.GetAttributes(),
		Secrets:    request.GetSecrets(),
		Permission: request.GetPermission(),
		TargetPath: request.GetTargetPath(),
	})
	log := s.config.Log.With(observe.KeyPod, mount.Pod.Namespace+"/"+mount.Pod.Name, observe.KeyPodUID, mount.Pod.UID, observe.KeyVolume, mount.Volume)
	var a answer
	if err == nil {
		a, err = s.answer(ctx, mount)
	}
	if a.first || err != nil {
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
		Files:         make([]*v1alpha1.File, len(a.files)),
		ObjectVersion: make([]*v1alpha1.ObjectVersion, len(a.files)),
	}
	for i, f := range a.files {
		response.Files[i] = &v1alpha1.File{Path: f.Path, Mode: int32(f.Mode.Perm()), Contents: f.Contents} //nolint:gosec // 0777 at most
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

// answer makes the volume's files: all of them, or none and an error that has every failure in it.
func (s *Server) answer(ctx context.Context, mount spec.Mount) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.MountTimeout, slowError{s.config.MountTimeout})
	defer cancel()

	volume, err := s.config.Keeper.Open(ctx, lease.Key{PodUID: mount.Pod.UID, Target: mount.Volume})
	if err != nil {
		return answer{}, fmt.Errorf("another Mount of this volume is still at work: %w", err)
	}
	defer volume.Close()
	holding, err := volume.Holding(ctx, mount.Class.Vault, mount.Pod.Token)
	if err != nil {
		return answer{}, err
	}
	files, err := render.Files(mount.Class.Objects, func(source spec.Source) (client.Grant, error) {
		return holding.Read(ctx, source)
	})
	if err != nil {
		return answer{}, err
	}
	first := volume.Show(holding, mount.Class.Sources())
	return answer{files, volume.VersionKey(), first}, nil
}

// slowError is why a Mount stops waiting for Vault.
type slowError struct{ waited time.Duration }

func (e slowError) Error() string {
	return fmt.Sprintf("no answer within %s; the request goes on, and kubelet's next try finds its answer", e.waited)
}

// Is makes a slowError a kind of context.DeadlineExceeded.
func (e slowError) Is(target error) bool { return target == context.DeadlineExceeded }
