package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"strings"
	"testing"
	"time"
)

const life = 30 * 24 * time.Hour

var noon = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

// advance takes a keychain one step on, and wants that step to be taken or not.
func advance(t *testing.T, k keychain, trusted bool, now time.Time, changed bool) keychain {
	t.Helper()
	next, got, err := k.next(serviceHost, validityOf(life), trusted, now)
	if err != nil || got != changed {
		t.Fatalf("%v after noon: got changed %v, %v, want %v", now.Sub(noon), got, err, changed)
	}
	if err := next.serves(next.bundle(), serviceHost, now); err != nil {
		t.Fatalf("%v after noon: what is served does not hold: %v", now.Sub(noon), err)
	}
	return next
}

// The life of a keychain: each renewal is one step, and what is served always holds for who trusts the bundle of before.
func TestKeychainIsRenewedStepByStep(t *testing.T) {
	first := advance(t, keychain{}, false, noon, true)
	if len(first.authorities) != 1 {
		t.Fatalf("got %d authorities, want one", len(first.authorities))
	}
	advance(t, first, true, noon.Add(life/2), false)

	renewed := advance(t, first, true, noon.Add(life*2/3+time.Hour), true)
	if renewed.serving == first.serving || renewed.newest() != first.newest() {
		t.Fatal("got no other certificate by the same authority")
	}
	now := noon.Add(2*life + time.Hour) // half of the authority's life
	renewed = advance(t, renewed, true, noon.Add(life*3/2), true)
	if bytes.Equal(renewed.bundle(), first.bundle()) != true {
		t.Fatal("got another bundle, want the same")
	}

	// A new authority: into the bundle, beside the old one, and nothing else.
	second := advance(t, renewed, true, now, true)
	if len(second.authorities) != 2 || second.serving != renewed.serving {
		t.Fatalf("got %d authorities and another certificate: %v", len(second.authorities), second.serving != renewed.serving)
	}
	if !bytes.HasPrefix(second.bundle(), first.bundle()) {
		t.Error("the bundle does not begin with the old authority")
	}
	// Nothing is signed by it before everybody has heard of it.
	settle := validityOf(life).settle
	advance(t, second, false, now.Add(settle+time.Minute), false)
	advance(t, second, true, now.Add(settle-time.Minute), false)
	third := advance(t, second, true, now.Add(settle), true)
	if err := third.serving.Leaf.CheckSignatureFrom(second.newest()); err != nil {
		t.Errorf("not signed by the new authority: %v", err)
	}
	if err := third.serves(second.bundle(), serviceHost, now.Add(settle)); err != nil {
		t.Errorf("who trusts the bundle of before does not trust what is served: %v", err)
	}
	// The old authority stays until its own end.
	for now := now.Add(time.Hour); now.Before(first.newest().NotAfter); now = now.Add(life / 3) {
		third, _, _ = third.next(serviceHost, validityOf(life), true, now)
		if !holds(third.bundle(), first.newest()) {
			t.Fatalf("%v after noon: the old authority is gone", now.Sub(noon))
		}
	}
	last, changed, err := third.next(serviceHost, validityOf(life), true, first.newest().NotAfter.Add(time.Second))
	if err != nil || !changed || holds(last.bundle(), first.newest()) {
		t.Errorf("got changed %v (%v), want it gone at its end", changed, err)
	}
}

// An authority is trusted for as long as anything that it has signed.
func TestAuthorityOutlivesWhatItSigns(t *testing.T) {
	k := advance(t, keychain{}, false, noon, true)
	for now := noon; now.Before(noon.Add(10 * life)); now = now.Add(life / 10) {
		next, _, err := k.next(serviceHost, validityOf(life), true, now)
		if err != nil {
			t.Fatal(err)
		}
		k = next
		signer := k.authorities[0]
		for _, a := range k.authorities {
			if k.serving.Leaf.CheckSignatureFrom(a) == nil {
				signer = a
			}
		}
		if k.serving.Leaf.NotAfter.After(signer.NotAfter) {
			t.Fatalf("%v after noon: the certificate ends at %v, its authority at %v", now.Sub(noon), k.serving.Leaf.NotAfter, signer.NotAfter)
		}
		if len(k.authorities) > 3 {
			t.Fatalf("%v after noon: %d authorities", now.Sub(noon), len(k.authorities))
		}
	}
}

// What everybody has missed for a year is made anew at once: there is nothing to lose.
func TestKeychainThatHasEnded(t *testing.T) {
	k := advance(t, keychain{}, false, noon, true)
	k = advance(t, k, false, noon.Add(20*life), true)
	if len(k.authorities) != 1 {
		t.Errorf("got %d authorities, want the new one", len(k.authorities))
	}
}

func TestKeychainForAnotherName(t *testing.T) {
	k := advance(t, keychain{}, false, noon, true)
	if err := k.serves(k.bundle(), "other.svc", noon); err == nil {
		t.Error("got no error for a name that the certificate does not have")
	}
	next, changed, err := k.next("other.svc", validityOf(life), false, noon)
	if err != nil || !changed || next.serves(k.bundle(), "other.svc", noon) != nil {
		t.Errorf("got changed %v, %v, want a certificate for the other name", changed, err)
	}
}

func TestCertificatesAreWhatTheyShouldBe(t *testing.T) {
	k := advance(t, keychain{}, false, noon, true)
	for name, got := range map[string]bool{
		"authority is P-256":        isP256(k.newest().PublicKey),
		"certificate is P-256":      isP256(k.serving.Leaf.PublicKey),
		"keys are apart":            !k.newest().PublicKey.(*ecdsa.PublicKey).Equal(k.serving.Leaf.PublicKey), //nolint:errcheck // it is one
		"authority signs":           k.newest().IsCA,
		"certificate does not sign": !k.serving.Leaf.IsCA,
		"a clock may go wrong":      k.serving.Leaf.NotBefore.Equal(noon.Add(-backdate)),
		"it lives as asked":         k.serving.Leaf.NotAfter.Equal(noon.Add(life)),
		"authority lives longer":    k.newest().NotAfter.Equal(noon.Add(4 * life)),
		"serial numbers differ":     k.newest().SerialNumber.Cmp(k.serving.Leaf.SerialNumber) != 0,
	} {
		if !got {
			t.Errorf("not so: %s", name)
		}
	}
}

func isP256(key any) bool {
	public, ok := key.(*ecdsa.PublicKey)
	return ok && public.Curve == elliptic.P256()
}

func TestKeychainIsWhatWasWrittenDown(t *testing.T) {
	k := advance(t, keychain{}, false, noon, true)
	k = advance(t, k, true, noon.Add(2*life-life/3), true)      // renewed
	k = advance(t, k, true, noon.Add(2*life+time.Second), true) // two authorities
	data, err := k.data()
	if err != nil {
		t.Fatal(err)
	}
	read, err := parseKeychain(data)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read.bundle(), k.bundle()) || !read.key.Equal(k.key) || !read.serving.Leaf.Equal(k.serving.Leaf) {
		t.Error("got another keychain than was written down")
	}
	if _, changed, err := read.next(serviceHost, validityOf(life), false, noon.Add(2*life+time.Second)); changed || err != nil {
		t.Errorf("got changed %v, %v, want nothing to do", changed, err)
	}
}

// Of a damaged Secret the authorities that are whole stay trusted; nothing of it is quoted.
func TestDamagedKeychainIsMended(t *testing.T) {
	k := advance(t, keychain{}, false, noon, true)
	other := advance(t, keychain{}, false, noon, true)
	foreign, err := other.data()
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(map[string][]byte){
		"nothing":        func(d map[string][]byte) { clear(d) },
		"no authorities": func(d map[string][]byte) { delete(d, keyAuthorities) },
		"no key":         func(d map[string][]byte) { delete(d, keyAuthorityKey) },
		"another's key":  func(d map[string][]byte) { d[keyAuthorityKey] = foreign[keyAuthorityKey] },
		"no certificate": func(d map[string][]byte) { delete(d, keyServing); delete(d, keyServingKey) },
		"another's pair": func(d map[string][]byte) {
			d[keyServing], d[keyServingKey] = foreign[keyServing], foreign[keyServingKey]
		},
		"half a pair":          func(d map[string][]byte) { d[keyServingKey] = foreign[keyServingKey] },
		"words":                func(d map[string][]byte) { d[keyAuthorities] = append(d[keyAuthorities], "very-secret"...) },
		"words for a key":      func(d map[string][]byte) { d[keyAuthorityKey] = []byte("very-secret") },
		"certificate as an ca": func(d map[string][]byte) { d[keyAuthorities] = append(d[keyAuthorities], d[keyServing]...) },
	} {
		t.Run(name, func(t *testing.T) {
			data, err := k.data()
			if err != nil {
				t.Fatal(err)
			}
			damage(data)
			read, lost := parseKeychain(data)
			if lost != nil && strings.Contains(lost.Error(), "very-secret") {
				t.Errorf("got %v, want it without a quotation", lost)
			}
			mended, _, err := read.next(serviceHost, validityOf(life), false, noon)
			if err != nil {
				t.Fatal(err)
			}
			if err := mended.serves(mended.bundle(), serviceHost, noon); err != nil {
				t.Errorf("what is served does not hold: %v", err)
			}
			if text := data[keyAuthorities]; len(text) > 0 && !holds(mended.bundle(), k.newest()) {
				t.Error("an authority that is whole was lost")
			}
		})
	}
}
