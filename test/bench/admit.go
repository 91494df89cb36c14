package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"sync/atomic"
	"time"
)

const (
	webhookSpace = "leasehold-system"
	webhookName  = "leasehold-webhook" // of its Service, its Secret, its Lease and its two configurations
	mutatingPath = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
)

// admit is how long the webhook takes for a pod whose class is there already, over TLS, and how many such pods it takes in
// a second. At each it asks the API server, a real one, for the class. All of it shares the machine's processors: the
// webhook, the API server with its etcd, and who asks.
func admit(ctx context.Context, w *world) ([]reading, error) {
	const calls, runs, together, length = 2000, 5, 16, time.Second
	var took, rates []float64
	err := w.withCluster(ctx, func(c *cluster) error {
		client, stop, err := w.startWebhook(ctx, c)
		if err != nil {
			return err
		}
		defer stop()
		for range 50 { // the first makes the class
			if err := client.admit(ctx); err != nil {
				return err
			}
		}
		for range calls {
			seconds, err := timed(func() error { return client.admit(ctx) })
			if err != nil {
				return err
			}
			took = append(took, seconds)
		}
		for range runs {
			var done atomic.Int64
			began := time.Now()
			err := inParallel(ctx, together, together, func(ctx context.Context, _ int) error {
				for time.Since(began) < length {
					if err := client.admit(ctx); err != nil {
						return err
					}
					done.Add(1)
				}
				return nil
			})
			if err != nil {
				return err
			}
			rates = append(rates, float64(done.Load())/time.Since(began).Seconds())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []reading{
		{1e6 * percentile(took, 0.99), []string{note("%d admissions one after the other; p50 %.0f us, most %.0f us", calls, 1e6*median(took), 1e6*percentile(took, 1))}},
		{median(rates), []string{note("%d at once, median of %d rounds of %v; rounds %s", together, runs, length, span(rates))}},
	}, nil
}

// admission is who asks the webhook about a pod, as the API server does.
type admission struct {
	http *http.Client
	url  string
	body []byte
}

func (a *admission) admit(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(a.body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := a.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	var review struct {
		Response struct {
			Allowed bool
			Patch   []byte
			Status  struct{ Message string }
		}
	}
	if err := json.Unmarshal(text, &review); err != nil {
		return err
	}
	if !review.Response.Allowed || len(review.Response.Patch) == 0 {
		return fmt.Errorf("the webhook did not translate the pod: %s", review.Response.Status.Message)
	}
	return nil
}

// annotated is a pod in the style of the injector's documentation.
var annotated = object{
	"apiVersion": "v1", "kind": "Pod",
	"metadata": object{"name": "app", "namespace": appsSpace, "annotations": object{
		"vault.hashicorp.com/agent-inject":                "true",
		"vault.hashicorp.com/role":                        "app",
		"vault.hashicorp.com/agent-inject-secret-config":  "kv/data/app",
		"vault.hashicorp.com/agent-inject-secret-db.conf": "database/creds/app",
		"vault.hashicorp.com/agent-inject-template-db.conf": `{{- with secret "database/creds/app" -}}
postgresql://{{ .Data.username }}:{{ .Data.password }}@postgres:5432/app?sslmode=disable
{{- end }}`,
	}},
	"spec": object{"serviceAccountName": appAccount, "containers": []object{{"name": "app", "image": "registry.example/app:1"}}},
}

// startWebhook makes what the chart makes for the webhook, as far as the webhook needs it, and starts it.
func (w *world) startWebhook(ctx context.Context, c *cluster) (_ *admission, stop func(), err error) {
	program, err := w.program("webhook")
	if err != nil {
		return nil, nil, err
	}
	// No namespace is called so: the API server itself asks the webhook nothing.
	webhook := object{
		"name": "pods.leasehold.dev", "admissionReviewVersions": []string{"v1"}, "sideEffects": "NoneOnDryRun", "failurePolicy": "Ignore",
		"namespaceSelector": object{"matchLabels": object{"nobody": "here"}},
		"clientConfig":      object{"service": object{"name": webhookName, "namespace": webhookSpace, "path": "/pods"}},
		"rules": []object{{
			"operations": []string{"CREATE"}, "apiGroups": []string{""}, "apiVersions": []string{"v1"}, "resources": []string{"pods"},
		}},
	}
	metadata := object{"name": webhookName}
	configuration := object{"metadata": metadata, "webhooks": []object{webhook}}
	err = errors.Join(
		c.create(ctx, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", classDefinition),
		c.create(ctx, "/api/v1/namespaces", object{"metadata": object{"name": webhookSpace}}),
		c.create(ctx, "/api/v1/namespaces/"+webhookSpace+"/secrets", object{"metadata": metadata}),
		c.create(ctx, "/apis/coordination.k8s.io/v1/namespaces/"+webhookSpace+"/leases", object{"metadata": metadata}),
		c.create(ctx, mutatingPath, configuration),
		c.create(ctx, "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", configuration),
	)
	if err != nil {
		return nil, nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, nil, err
	}
	process, err := w.bed.Start(w.unique("webhook"), exec.CommandContext(context.WithoutCancel(ctx), program,
		"-https-addr=127.0.0.1:"+ports[0], "-http-addr=127.0.0.1:"+ports[1], "-namespace="+webhookSpace, "-identity=bench",
		"-kubeconfig="+c.kubeconfig, "-vault-addr=https://vault.example:8200"))
	if err != nil {
		return nil, nil, err
	}
	a := &admission{url: "https://127.0.0.1:" + ports[0] + "/pods?timeout=10s"}
	stop = func() {
		if a.http != nil {
			a.http.CloseIdleConnections()
		}
		process.Kill()
	}
	if a.body, err = json.Marshal(object{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
		"request": object{
			"uid": "00000000-0000-4000-8000-000000000004", "operation": "CREATE", "namespace": appsSpace, "name": "app", "object": annotated,
			"kind": object{"version": "v1", "kind": "Pod"}, "resource": object{"version": "v1", "resource": "pods"},
		},
	}); err == nil {
		err = process.Until(ctx, func(ctx context.Context) error { return a.trust(ctx, c, ports[1]) })
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return a, stop, nil
}

// trust takes from the webhook's configuration what the API server would trust, once the webhook says that it is ready.
func (a *admission) trust(ctx context.Context, c *cluster, healthPort string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+healthPort+"/readyz", nil)
	if err != nil {
		return err
	}
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the webhook's /readyz: status %d", answer.StatusCode)
	}
	text, err := c.ask(ctx, http.MethodGet, mutatingPath+"/"+webhookName, nil)
	if err != nil {
		return err
	}
	var configuration struct {
		Webhooks []struct{ ClientConfig struct{ CABundle []byte } }
	}
	if err := json.Unmarshal(text, &configuration); err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if len(configuration.Webhooks) != 1 || !roots.AppendCertsFromPEM(configuration.Webhooks[0].ClientConfig.CABundle) {
		return errors.New("the webhook's configuration has no authority yet")
	}
	a.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, ServerName: webhookName + "." + webhookSpace + ".svc", MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: 64, ForceAttemptHTTP2: true,
	}}
	return nil
}

// classDefinition is the driver's SecretProviderClass; what is in it is not looked at.
var classDefinition = object{
	"metadata": object{"name": "secretproviderclasses.secrets-store.csi.x-k8s.io"},
	"spec": object{
		"group": "secrets-store.csi.x-k8s.io", "scope": "Namespaced",
		"names": object{
			"kind": "SecretProviderClass", "listKind": "SecretProviderClassList",
			"plural": "secretproviderclasses", "singular": "secretproviderclass",
		},
		"versions": []object{{
			"name": "v1", "served": true, "storage": true,
			"schema": object{"openAPIV3Schema": object{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
		}},
	},
}
