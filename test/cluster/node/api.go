package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

// apiClient asks the API server the few questions that starting a cluster takes.
type apiClient struct{ http *http.Client }

func newAPIClient(i *identities) (*apiClient, error) {
	pair, err := tls.LoadX509KeyPair(i.pairs["admin"].CertFile, i.pairs["admin"].KeyFile)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(i.authority.CertFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	return &apiClient{http: &http.Client{Transport: &http.Transport{TLSClientConfig: config}}}, nil
}

// get decodes an answer into into, unless that is nil.
func (c *apiClient) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, api()+path, http.NoBody)
	if err != nil {
		return err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return err
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("GET %s: %s: %s", path, answer.Status, bytes.TrimSpace(body))
	case into == nil:
		return nil
	default:
		return json.Unmarshal(body, into)
	}
}

func (c *apiClient) ready(ctx context.Context) error { return c.get(ctx, "/readyz", nil) }

func (c *apiClient) nodeReady(ctx context.Context) error {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.get(ctx, "/api/v1/nodes/"+Name, &node); err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type != "Ready" {
			continue
		}
		if condition.Status == "True" {
			return nil
		}
		return fmt.Errorf("the node is not ready: %s", condition.Message)
	}
	return fmt.Errorf("the node has not said whether it is ready")
}

func (c *apiClient) defaultServiceAccount(ctx context.Context) error {
	return c.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
}

func (c *apiClient) driverRegistered(ctx context.Context) error {
	var node struct {
		Spec struct{ Drivers []struct{ Name string } }
	}
	if err := c.get(ctx, "/apis/storage.k8s.io/v1/csinodes/"+Name, &node); err != nil {
		return err
	}
	for _, driver := range node.Spec.Drivers {
		if driver.Name == "secrets-store.csi.k8s.io" {
			return nil
		}
	}
	return fmt.Errorf("kubelet does not know the driver yet; its pods: see \"kubectl -n kube-system get pods\"")
}
