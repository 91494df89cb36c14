package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"leasehold/internal/lease"
	"leasehold/internal/observe"
	"leasehold/internal/podwatch"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// pods is the pod watch in the words of package lease.
type pods struct{ watch *podwatch.Watch }

var _ lease.Pods = pods{}

// newPods returns the watch over the node's pods, which calls changed whenever there is news of them.
func newPods(c config, log *slog.Logger, changed func()) (pods, error) {
	access, err := apiAccess(c.Kubeconfig)
	if err != nil {
		return pods{}, err
	}
	access.UserAgent = "leasehold/" + observe.Version()
	watch, err := podwatch.New(podwatch.Config{REST: access, Node: c.NodeName, Log: log, Changed: changed})
	return pods{watch}, err
}

// apiAccess tells how to reach the API server: as the file says or, without one, as the service account of this pod.
func apiAccess(kubeconfig string) (*rest.Config, error) {
	if kubeconfig != "" {
		access, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("-kubeconfig: %w", err)
		}
		return access, nil
	}
	access, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("-node-name: watching the pods of a node takes access to the API server: %w; mount the token of a "+
			"service account, or give -kubeconfig", err)
	}
	// A proxy in the environment leads to Vault. To the API server, an address of the cluster itself, there is none.
	access.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	return access, nil
}

func (p pods) Look(pod spec.Pod) lease.Life { return lifeOf(p.watch.Look(watched(pod))) }

func (p pods) Confirm(ctx context.Context, pod spec.Pod) (lease.Life, error) {
	state, err := p.watch.Confirm(ctx, watched(pod))
	return lifeOf(state), err
}

func (p pods) Event(pod spec.Pod, reason, message string) {
	p.watch.Event(watched(pod), reason, message)
}

func (p pods) Token(ctx context.Context, pod spec.Pod, audience string) (redact.String, time.Time, error) {
	token, expires, err := p.watch.Token(ctx, watched(pod), audience)
	if err != nil {
		return redact.String{}, time.Time{}, err
	}
	return redact.New(token), expires, nil
}

// watched is a pod without its token, which the watch has no use for.
func watched(pod spec.Pod) podwatch.Pod {
	return podwatch.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ServiceAccount: pod.ServiceAccount}
}

func lifeOf(state podwatch.State) lease.Life {
	switch state {
	case podwatch.Alive:
		return lease.Alive
	case podwatch.Ended:
		return lease.Ended
	case podwatch.Absent:
		return lease.Absent
	case podwatch.Unknown:
	}
	return lease.Unknown
}
