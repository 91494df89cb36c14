package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// bare is what a first Mount is compared with: the two requests that it cannot do without, by a client that wastes nothing.
// Its connections are kept, it speaks to Vault as the provider does, and of the answers it reads what the next step takes.
type bare struct {
	http    *http.Client
	address string
}

// newBare returns a client that keeps so many connections.
func newBare(address string, connections int) *bare {
	return &bare{&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}}, address}
}

func (b *bare) close() { b.http.CloseIdleConnections() }

// pair logs in with a service account token and obtains database credentials of a role.
func (b *bare) pair(ctx context.Context, role, jwt string) error {
	body, err := json.Marshal(map[string]string{"role": role, "jwt": jwt})
	if err != nil {
		return err
	}
	var login struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	if err := b.ask(ctx, http.MethodPost, "auth/kubernetes/login", "", body, &login); err != nil {
		return err
	}
	var credentials struct {
		Data struct{ Username, Password string }
	}
	if err := b.ask(ctx, http.MethodGet, "database/creds/"+role, login.Auth.ClientToken, nil, &credentials); err != nil {
		return err
	}
	if credentials.Data.Username == "" || credentials.Data.Password == "" {
		return fmt.Errorf("the bare client got no credentials of role %q", role)
	}
	return nil
}

func (b *bare) ask(ctx context.Context, method, path, token string, body []byte, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, b.address+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("X-Vault-Request", "true")
	if token != "" {
		request.Header.Set("X-Vault-Token", token)
	}
	answer, err := b.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the bare client's %s %s: status %d", method, path, answer.StatusCode)
	}
	return json.Unmarshal(text, into)
}
