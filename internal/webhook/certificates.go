package webhook

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"leasehold/internal/observe"
)

// CertificatesConfig is what Certificates are made of. All of it is required.
type CertificatesConfig struct {
	API        *API
	Namespace  string        // of the Secret and the Service
	Service    string        // by whose name the API server calls us
	Secret     string        // which the replicas share; it must exist, and may be empty
	Mutating   string        // name of the MutatingWebhookConfiguration
	Validating string        // name of the ValidatingWebhookConfiguration
	Life       time.Duration // of a serving certificate; an authority lives four times as long
	Log        *slog.Logger
}

// MinLife is the shortest life of a serving certificate.
const MinLife = time.Minute

// Certificates are what the webhook serves with and what the API server trusts: an authority of our own, which the
// webhook writes into its webhook configurations, and a certificate by it.
//
// A renewal must not make one admission fail. So a new authority is put into the configurations beside the old one, which
// stays until its own end; only when every API server must have heard of it is something served that it has signed. Each
// replica takes the same steps and writes on condition that nobody else has written since it read: they agree by the
// Secret's resource version. And each reads the configurations before the Secret, and writes them on the same condition:
// so none puts back a bundle that is older than what another one has written.
type Certificates struct {
	config   CertificatesConfig
	name     string // to serve under
	validity validity

	mu      sync.Mutex
	serving *tls.Certificate // nil until there is one
	fault   error            // why the API server would not trust it; nil if it would
}

// NewCertificates checks the configuration. Run makes and renews the certificates.
func NewCertificates(c CertificatesConfig) (*Certificates, error) {
	switch {
	case c.API == nil || c.Log == nil:
		return nil, errors.New("the certificates need the API server and a logger")
	case c.Namespace == "" || c.Service == "" || c.Secret == "" || c.Mutating == "" || c.Validating == "":
		return nil, errors.New("the certificates need the names of a namespace, a Service, a Secret and two webhook configurations")
	case c.Life < MinLife:
		return nil, fmt.Errorf("a certificate must live for at least %s", MinLife)
	}
	return &Certificates{
		config: c, name: c.Service + "." + c.Namespace + ".svc", validity: validityOf(c.Life),
		fault: errors.New("no certificate yet"),
	}, nil
}

// Run looks after the certificates until ctx ends.
func (c *Certificates) Run(ctx context.Context) {
	last := "nothing is known yet" // what went wrong last, so that it is told once
	for {
		err := c.tend(ctx, time.Now())
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		switch {
		case text == last:
		case apierrors.IsConflict(err):
			text = last // another replica has written meanwhile: that is to be read
		case err != nil:
			c.config.Log.Warn("the webhook's certificates cannot be looked after", observe.KeyError, err)
		default:
			c.config.Log.Info("the API server trusts the webhook's certificate", "name", c.name)
		}
		last = text
		pause := min(10*time.Second, c.validity.settle/2)
		if err != nil {
			pause = time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// GetCertificate is for tls.Config: what is served now.
func (c *Certificates) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.serving == nil {
		return nil, errors.New("the webhook has no certificate yet")
	}
	return c.serving, nil
}

// Ready returns why the API server would not trust what is served, or nil. While the API server cannot be asked, what it
// said last holds.
func (c *Certificates) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault == nil && time.Now().After(c.serving.Leaf.NotAfter) {
		return errors.New("the certificate has ended, and the API server does not let the webhook renew it")
	}
	return c.fault
}

// End is when the certificate that is served ends; zero without one.
func (c *Certificates) End() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.serving == nil {
		return time.Time{}
	}
	return c.serving.Leaf.NotAfter
}

// tend takes one look at everything, and at most one step.
func (c *Certificates) tend(ctx context.Context, now time.Time) error {
	configurations, err := c.configurations(ctx) // first: see Certificates
	if apierrors.IsNotFound(err) {
		c.judge(err) // who knows no configuration of ours trusts nobody
		return err
	}
	if err != nil {
		return c.unsure(err)
	}
	secret := &corev1.Secret{}
	if err := c.read(ctx, c.secretPlace(), secret); err != nil {
		return c.unsure(err)
	}
	chain, lost := parseKeychain(secret.Data)
	chain, changed, err := chain.next(c.name, c.validity, trustNewest(configurations, chain), now)
	if err != nil {
		return c.unsure(err)
	}
	if changed {
		if secret.Data, err = chain.data(); err != nil {
			return c.unsure(err)
		}
		if err := c.config.API.update(ctx, c.secretPlace(), secret); err != nil {
			return c.unsure(err) // a conflict as well: another replica has taken this step, and is to be read
		}
		c.config.Log.Info("the webhook's certificates were renewed", "authorities", len(chain.authorities),
			"authority", chain.newest().Subject.CommonName, "served_until", chain.serving.Leaf.NotAfter)
		if lost != nil {
			c.config.Log.Warn("the webhook's Secret was damaged, and has been mended", "secret", c.secretPlace().String(), observe.KeyError, lost)
		}
	}
	c.serve(chain.serving)
	distrust, err := c.spread(ctx, configurations, chain, now)
	c.judge(distrust)
	return errors.Join(distrust, err)
}

// serve takes what is served from now on.
func (c *Certificates) serve(serving *tls.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving = serving
}

// unsure notes that nothing could be found out. If the API server has trusted what is served, it still does.
func (c *Certificates) unsure(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault != nil {
		c.fault = err
	}
	return err
}

// judge notes why the API server does not trust what is served, or that it does.
func (c *Certificates) judge(distrust error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = distrust
}

func (c *Certificates) secretPlace() place {
	return place{group: coreGroup, namespace: c.config.Namespace, resource: "secrets", name: c.config.Secret}
}

// configuration is a webhook configuration as far as it concerns the certificates.
type configuration struct {
	place   place
	version string         // resource version
	bundles map[int][]byte // of the webhooks that call our Service, by their index
}

// configurations reads both of them.
func (c *Certificates) configurations(ctx context.Context) ([]configuration, error) {
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{}
	first := newConfiguration("mutatingwebhookconfigurations", c.config.Mutating)
	if err := c.read(ctx, first.place, mutating); err != nil {
		return nil, err
	}
	first.version = mutating.ResourceVersion
	for i := range mutating.Webhooks {
		c.note(first, i, mutating.Webhooks[i].ClientConfig)
	}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	second := newConfiguration("validatingwebhookconfigurations", c.config.Validating)
	if err := c.read(ctx, second.place, validating); err != nil {
		return nil, err
	}
	second.version = validating.ResourceVersion
	for i := range validating.Webhooks {
		c.note(second, i, validating.Webhooks[i].ClientConfig)
	}
	return []configuration{first, second}, nil
}

func newConfiguration(resource, name string) configuration {
	return configuration{place: place{group: registrationGroup, resource: resource, name: name}, bundles: make(map[int][]byte)}
}

// read reads an object that the chart makes.
func (c *Certificates) read(ctx context.Context, p place, into runtime.Object) error {
	err := c.config.API.get(ctx, p, into)
	if isMissing(err, p) {
		err = fmt.Errorf("%w; Leasehold's chart makes it", err)
	}
	return err
}

// note notes the bundle of a webhook that calls our Service.
func (c *Certificates) note(into configuration, index int, client admissionregistrationv1.WebhookClientConfig) {
	if s := client.Service; s != nil && s.Name == c.config.Service && s.Namespace == c.config.Namespace {
		into.bundles[index] = client.CABundle
	}
}

// trustNewest tells whether all webhooks have the newest authority.
func trustNewest(configurations []configuration, chain keychain) bool {
	if len(chain.authorities) == 0 {
		return false
	}
	for _, configuration := range configurations {
		for _, bundle := range configuration.bundles {
			if !holds(bundle, chain.newest()) {
				return false
			}
		}
	}
	return true
}

// spread writes the bundle into the configurations that have another one. It returns why one of them does not trust what
// is served, and what went wrong otherwise.
func (c *Certificates) spread(ctx context.Context, configurations []configuration, chain keychain, now time.Time) (distrust, err error) {
	bundle := chain.bundle()
	var faults, failures []error
	for _, configuration := range configurations {
		if len(configuration.bundles) == 0 {
			faults = append(faults, fmt.Errorf("%s has no webhook that calls Service %q", configuration.place, c.config.Service))
			continue
		}
		patch, err := configuration.patch(bundle)
		if err == nil && patch != nil {
			err = c.config.API.patch(ctx, configuration.place, types.JSONPatchType, patch)
		}
		switch {
		case apierrors.IsForbidden(err):
			failures = append(failures, fmt.Errorf("the webhook may not write its authority into its own configuration: %w", err))
		case err != nil:
			failures = append(failures, err)
		case patch != nil:
			c.config.Log.Info("the webhook's authorities were written into a configuration", "configuration", configuration.place.String())
			configuration.bundles = map[int][]byte{0: bundle}
		}
		for _, bundle := range configuration.bundles {
			if err := chain.serves(bundle, c.name, now); err != nil {
				faults = append(faults, fmt.Errorf("%s does not trust the webhook's certificate: %w", configuration.place, err))
				break
			}
		}
	}
	return errors.Join(faults...), errors.Join(failures...)
}

// patch returns what puts the bundle into all webhooks of the configuration as it was read, or nil if it is there.
func (c configuration) patch(bundle []byte) ([]byte, error) {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	operations := []operation{{"replace", "/metadata/resourceVersion", c.version}}
	for index, old := range c.bundles {
		if string(old) != string(bundle) {
			operations = append(operations, operation{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", index), bundle})
		}
	}
	if len(operations) == 1 {
		return nil, nil
	}
	return json.Marshal(operations)
}
