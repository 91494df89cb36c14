package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// answerFile is where the empty provider finds what it answers.
const answerFile = "answer"

// empty is a provider that does as little as a provider can: it reads the attributes, and answers what it always answers.
type empty struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
	answer *v1alpha1.MountResponse
}

// Mount implements v1alpha1.CSIDriverProviderServer.
func (e *empty) Mount(_ context.Context, request *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	var attributes map[string]string
	if err := json.Unmarshal([]byte(request.GetAttributes()), &attributes); err != nil {
		return nil, err
	}
	return e.answer, nil
}

// serveEmpty serves the empty provider at the socket that the driver looks for in dir, until ctx ends.
func serveEmpty(ctx context.Context, dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, answerFile))
	if err != nil {
		return err
	}
	answer := &v1alpha1.MountResponse{}
	if err := proto.Unmarshal(text, answer); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", filepath.Join(dir, "vault.sock"))
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(server, &empty{answer: answer})
	context.AfterFunc(ctx, server.Stop)
	return server.Serve(l)
}
