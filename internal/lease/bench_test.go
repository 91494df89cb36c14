package lease

import (
	"fmt"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/spec"
)

// BenchmarkNext asks the policy about one lease.
func BenchmarkNext(b *testing.B) {
	t := term{Kind: kindLease, Start: began, End: hours(1), Renewable: true, Early: 0.5}
	life := spec.Lifecycle{Refresh: 5 * time.Minute, RenewAt: 0.67}
	for b.Loop() {
		t.next(life)
	}
}

// BenchmarkConsider looks at a quiet volume once, as the keeper's loop does whenever something may be due.
func BenchmarkConsider(b *testing.B) {
	v := quietVolumes(b, NewKeeper(Config{}), 1)[0]
	b.ReportAllocs()
	for b.Loop() {
		v.consider(began)
	}
}

// BenchmarkPass is one round of the keeper's loop for which nothing is due, by the number of volumes.
func BenchmarkPass(b *testing.B) {
	for _, count := range []int{100, 1000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			k := NewKeeper(Config{})
			for _, v := range quietVolumes(b, k, count) {
				k.agenda[v] = hours(1)
			}
			b.ReportAllocs()
			for b.Loop() {
				k.pass(b.Context(), began)
			}
		})
	}
}

// quietVolumes are volumes whose token and lease have just been granted for an hour.
func quietVolumes(b *testing.B, k *Keeper, count int) []*Volume {
	b.Helper()
	pool, err := client.NewPool(client.Config{Timeout: patience, MaxInFlight: 1, MaxTransports: 1, MaxAnswer: 1})
	if err != nil {
		b.Fatal(err)
	}
	volumes := make([]*Volume, count)
	for i := range volumes {
		v := newVolume(k, spec.Mount{
			Class: spec.Class{Lifecycle: spec.Lifecycle{Refresh: 5 * time.Minute, RenewAt: 0.67}},
			Pod:   spec.Pod{UID: fmt.Sprint("uid-", i)}, Volume: "/pods/volume",
		})
		h := newHolding(v, pool.Restore(spec.Vault{}, client.Record{Token: "token", Renewable: true, Start: began, End: hours(1)}))
		h.grants[userSource] = &held{term: term{Kind: kindLease, Start: began, End: hours(1), Full: time.Hour, Renewable: true}}
		v.shown, v.sources, v.written = h, []spec.Source{userSource}, true
		k.volumes[v.key] = v
		volumes[i] = v
	}
	return volumes
}
