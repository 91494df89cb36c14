package client_test

import (
	"encoding/json"
	"testing"

	"leasehold/internal/client"
)

// A batch token is one after a restart, too: nobody tries to renew or to revoke it.
func TestRecordOfABatchToken(t *testing.T) {
	text, err := json.Marshal(client.Record{Token: "t", Batch: true, Renewable: true})
	if err != nil {
		t.Fatal(err)
	}
	var r client.Record
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	s := newPool(t, client.Config{}).Restore(vaultAt("http://127.0.0.1:1"), r)
	if s.Revocable() || s.Renewable() {
		t.Errorf("got revocable %v, renewable %v, want neither", s.Revocable(), s.Renewable())
	}
}
