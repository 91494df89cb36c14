package client

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

func valid() Config {
	return Config{Timeout: 10 * time.Second, MaxInFlight: 4, MaxTransports: 2, MaxAnswer: 1 << 20}
}

func TestNewPoolChecksItsConfiguration(t *testing.T) {
	for _, tt := range []struct {
		break_ func(*Config)
		want   string
	}{
		{func(c *Config) { c.Timeout = 0 }, "timeout"},
		{func(c *Config) { c.MaxInFlight = 0 }, "in flight"},
		{func(c *Config) { c.MaxTransports = 0 }, "transports"},
		{func(c *Config) { c.MaxAnswer = -1 }, "size limit"},
	} {
		c := valid()
		tt.break_(&c)
		if _, err := NewPool(c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got error %v, want one with %q", err, tt.want)
		}
	}
	if _, err := NewPool(valid()); err != nil {
		t.Errorf("got error %v", err)
	}
}

// Volumes may bring TLS material of their own: the transports are bounded all the same, and a session whose transport
// was closed gets another.
func TestTransportsAreBounded(t *testing.T) {
	block := make(chan struct{})
	arrived := make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/slow") {
			arrived <- struct{}{}
			<-block
		}
		_, _ = io.WriteString(w, `{"request_id":"1","data":{},"auth":{"client_token":"t","policies":["default"]}}`)
	}))
	defer s.Close()
	p, err := NewPool(valid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	login := func(name string) *Session {
		t.Helper()
		v := spec.Vault{Address: s.URL, AuthPath: "jwt", TLS: spec.TLS{ServerName: name}}
		session, err := p.Login(t.Context(), v, redact.New("jwt"))
		if err != nil {
			t.Fatal(err)
		}
		return session
	}
	read := func(s *Session, path string) {
		if _, err := s.Read(t.Context(), spec.Source{Method: "GET", Path: path}); err != nil {
			t.Errorf("got error %v", err)
		}
	}
	want := func(names ...string) {
		t.Helper()
		p.mu.Lock()
		defer p.mu.Unlock()
		var got []string
		for _, t := range p.transports {
			got = append(got, t.base.TLSClientConfig.ServerName)
		}
		if strings.Join(got, " ") != strings.Join(names, " ") {
			t.Errorf("got transports %q, want %q", got, names)
		}
	}
	a := login("a")
	login("b")
	login("a") // used again, not made again
	want("b", "a")
	login("c")
	want("a", "c")
	login("d")
	want("c", "d")
	read(a, "x")
	want("d", "a")

	var wg sync.WaitGroup
	wg.Go(func() { read(a, "slow") })
	<-arrived
	login("e")
	login("f")
	want("a", "f") // a is in use, however long ago
	close(block)
	wg.Wait()
	login("g")
	want("f", "g")
}
