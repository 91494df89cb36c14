package spec

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"leasehold/internal/redact"
)

// TestParseLifecycle gives each row the parameters of one class. Faults are in TestParseFaults.
func TestParseLifecycle(t *testing.T) {
	type parameters = map[string]string
	for name, row := range map[string]struct {
		class parameters
		want  func(*Lifecycle)
	}{
		"nothing said": {parameters{}, func(*Lifecycle) {}},
		"spaces":       {parameters{"refresh": " ", "renewAt": "\n", "rotation": "", "deliverToken": "\t"}, func(*Lifecycle) {}},
		"all of it": {
			parameters{"refresh": "90s", "renewAt": "0.5", "revokeGrace": "1h30m", "rotation": "off", "deliverToken": "vault/token"},
			func(l *Lifecycle) { *l = Lifecycle{90 * time.Second, 0.5, 90 * time.Minute, true, "vault/token"} },
		},
		"block texts":         {parameters{"refresh": "1m\n", "renewAt": " 0.9\n"}, func(l *Lifecycle) { l.Refresh, l.RenewAt = time.Minute, 0.9 }},
		"the bounds":          {parameters{"refresh": "1s", "renewAt": "0.3", "revokeGrace": "0"}, func(l *Lifecycle) { l.Refresh, l.RenewAt, l.RevokeGrace = time.Second, 0.3, 0 }},
		"refresh off":         {parameters{"refresh": "Off"}, func(l *Lifecycle) { l.Refresh = 0 }},
		"refresh false":       {parameters{"refresh": "false"}, func(l *Lifecycle) { l.Refresh = 0 }},
		"rotation on":         {parameters{"rotation": "on"}, func(*Lifecycle) {}},
		"rotation true":       {parameters{"rotation": "true"}, func(*Lifecycle) {}},
		"rotation yes":        {parameters{"rotation": "yes"}, func(*Lifecycle) {}},
		"rotation no":         {parameters{"rotation": "no"}, func(l *Lifecycle) { l.Frozen = true }},
		"rotation False":      {parameters{"rotation": "False"}, func(l *Lifecycle) { l.Frozen = true }},
		"rotation OFF":        {parameters{"rotation": "OFF"}, func(l *Lifecycle) { l.Frozen = true }},
		"deliverToken off":    {parameters{"deliverToken": "off"}, func(*Lifecycle) {}},
		"deliverToken false":  {parameters{"deliverToken": "false"}, func(*Lifecycle) {}},
		"deliverToken nested": {parameters{"deliverToken": "tls/token"}, func(l *Lifecycle) { l.TokenFile = "tls/token" }}, // beside tls/bundle.json
	} {
		t.Run(name, func(t *testing.T) {
			c := validCall()
			for name, value := range row.class {
				c.attributes[name] = value
			}
			want := Lifecycle{Refresh: 5 * time.Minute, RenewAt: 0.67, RevokeGrace: 10 * time.Minute}
			row.want(&want)
			m := mustParse(t, c)
			if m.Class.Lifecycle != want {
				t.Errorf("got  %+v\nwant %+v", m.Class.Lifecycle, want)
			}
			if len(m.Ignored) > 0 {
				t.Errorf("%q are ignored", m.Ignored)
			}
		})
	}
}

// A Mount that is written down as JSON and read again is the same, but for its secrets: those have to be written apart,
// by who knows where they may go.
func TestMountInJSON(t *testing.T) {
	c := validCall()
	c.attributes["rotation"], c.attributes["deliverToken"], c.attributes["unknown"] = "off", "token", "x"
	c.secrets["ca.crt"], c.secrets["tls.crt"], c.secrets["tls.key"] = certPEM, certPEM, keyPEM
	want := mustParse(t, c)
	if want.Pod.Token.IsZero() || want.Class.Vault.TLS.Key.IsZero() {
		t.Fatal("the mount has no secrets to leave out")
	}
	text := encode(want)
	for _, trace := range []string{canary, "PRIVATE KEY", "redacted"} {
		if strings.Contains(text, trace) {
			t.Errorf("%s has %q in it", text, trace)
		}
	}
	var got Mount
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	want.Pod.Token, want.Class.Vault.TLS.Key = redact.String{}, redact.String{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
