package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// What is beyond a bound is denied by its name, and what is just within is not.
func TestBounds(t *testing.T) {
	annotate := func(pod *corev1.Pod, key string, value string) { pod.Annotations[annotationPrefix+key] = value }
	for name, row := range map[string]struct {
		bound int
		grow  func(pod *corev1.Pod, n int)
		want  string
	}{
		"annotations": {maxAnnotations, func(pod *corev1.Pod, n int) {
			for key, value := range pod.Annotations {
				n -= len(key) + len(value)
			}
			pod.Annotations["other.example/x"] = strings.Repeat("x", n-len("other.example/x"))
		}, "bytes of annotations"},
		"key":      {maxKey, func(pod *corev1.Pod, n int) { annotate(pod, strings.Repeat("-", n), "x") }, "the key has 64 bytes"},
		"volumes":  {maxVolumes, func(pod *corev1.Pod, n int) { pod.Spec.Volumes = make([]corev1.Volume, n) }, "501 volumes"},
		"mounts":   {maxMounts, func(pod *corev1.Pod, n int) { pod.Spec.Containers[0].VolumeMounts = make([]corev1.VolumeMount, n) }, "2001 mounts"},
		"of inits": {maxContainers - 1, func(pod *corev1.Pod, n int) { pod.Spec.InitContainers = make([]corev1.Container, n) }, "251 containers"},
		"file": {maxPath, func(pod *corev1.Pod, n int) {
			annotate(pod, "agent-inject-file-a", strings.Repeat("/a", n/2)+strings.Repeat("/", n%2))
		}, "longer than 1024 bytes"},
		"directory": {maxPath, func(pod *corev1.Pod, n int) {
			annotate(pod, "secret-volume-path", strings.Repeat("/a", n/2)+strings.Repeat("/", n%2))
		}, "longer than 1024 bytes"},
		"directories": {maxDirectories - 1, func(pod *corev1.Pod, n int) { // one more is that of all secrets
			for i := range n {
				annotate(pod, fmt.Sprintf("agent-inject-secret-%d", i), "kv/a")
				annotate(pod, fmt.Sprintf("secret-volume-path-%d", i), fmt.Sprintf("/secrets/%d", i))
			}
		}, "more than 32 directories"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{row.bound, row.bound + 1} {
				pod := annotated(map[string]string{"agent-inject-secret-a": "kv/a"})
				row.grow(pod, n)
				translation, err := goldenPolicy{}.policy().Translate(pod, nil)
				denial := Denial(nil)
				if err != nil && !errors.As(err, &denial) {
					t.Fatal(err)
				}
				if got := strings.Contains(denial.Error(), row.want); got != (n > row.bound) || got != (err != nil) {
					t.Errorf("got %v of %d, want %q only beyond %d", err, n, row.want, row.bound)
				}
				if err != nil || name == "annotations" { // one more is added, and the API server refuses it as well
					continue
				}
				if _, err := (goldenPolicy{}).policy().Translate(translation.Pod, nil); err != nil {
					t.Errorf("what was translated is denied the second time: %v", err)
				}
			}
		})
	}
}

// What nobody will read is not looked for.
func TestFindingsBeyondTheBoundTakeNoTime(t *testing.T) {
	f := &findings{}
	asked := 0
	for range 2 * maxFindings {
		f.warn("%s", later(func() string {
			asked++
			return "x"
		}))
	}
	if asked != maxFindings || len(f.warnings) != maxFindings || f.warnings[0] != "x" {
		t.Errorf("looked for %d findings and said %d, want %d", asked, len(f.warnings), maxFindings)
	}
}

// The worst that fits within the bounds does not keep others waiting. Without them each of these takes minutes.
func TestHostilePodsAreQuick(t *testing.T) {
	const each = 2000 // keys; with their values they have nearly as many bytes as annotations may
	for name, grow := range map[string]func(pod *corev1.Pod, i int){
		"unknown keys": func(pod *corev1.Pod, i int) {
			pod.Annotations[annotationPrefix+fmt.Sprintf("agent-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-%d", i)] = ""
		},
		"details of no secret": func(pod *corev1.Pod, i int) {
			pod.Annotations[annotationPrefix+fmt.Sprintf("agent-inject-secret-%032d", i)] = "x"
			pod.Annotations[annotationPrefix+fmt.Sprintf("agent-inject-perms-x%032d", i)] = "0644"
		},
		"template files": func(pod *corev1.Pod, i int) {
			pod.Annotations[annotationPrefix+fmt.Sprintf("agent-inject-template-file-%d", i)] = "/a/b/c/d/e"
		},
		"directories": func(pod *corev1.Pod, i int) {
			pod.Annotations[annotationPrefix+fmt.Sprintf("agent-inject-secret-%d", i)] = "x"
			pod.Annotations[annotationPrefix+fmt.Sprintf("secret-volume-path-%d", i)] = fmt.Sprintf("/a/%d", i)
		},
		"containers that are not there": func(pod *corev1.Pod, i int) {
			pod.Annotations[annotationPrefix+"agent-inject-containers"] += fmt.Sprintf(",x%d", i)
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := annotated(nil)
			for i := range each {
				grow(pod, i)
			}
			pod.Spec.Containers = make([]corev1.Container, maxContainers)
			for i := range pod.Spec.Containers {
				pod.Spec.Containers[i].VolumeMounts = make([]corev1.VolumeMount, maxMounts/maxContainers)
			}
			pod.Spec.Volumes = make([]corev1.Volume, maxVolumes)
			began := time.Now()
			_, _ = goldenPolicy{Warn: true}.policy().Translate(pod, nil)
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("took %v, want well below a second on a machine that is not busy", took)
			}
		})
	}
}

// Large reviews are read and decided about one after the other, ordinary ones as many as have room; each is answered.
func TestLargeReviewsWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		var reads atomic.Int32
		var mu sync.Mutex // guards what follows
		atWork, most := 0, 0
		work := func(change int) {
			mu.Lock()
			defer mu.Unlock()
			atWork += change
			most = max(most, atWork)
		}
		mostSince := func() int {
			mu.Lock()
			defer mu.Unlock()
			defer func() { most = 0 }()
			return most
		}
		m.server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "secretproviderclasses") {
				work(+1)
				time.Sleep(time.Second)
				work(-1)
			}
			return false
		})
		h := m.handler()
		answers := func(count, size int) {
			text := reviewText(t, request("pods", "Pod", podText(introduction)))
			text = append(text, bytes.Repeat([]byte(" "), size-len(text))...)
			var asking sync.WaitGroup
			for range count {
				asking.Go(func() {
					body := &watched{Reader: bytes.NewReader(text), reads: &reads}
					r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, PathPods+"?timeout=10s", body)
					r.ContentLength = int64(size)
					w := httptest.NewRecorder()
					if h.ServeHTTP(w, r); w.Code != http.StatusOK || !readResponse(t, w.Body.Bytes()).Allowed {
						t.Errorf("got %d: %s", w.Code, w.Body)
					}
				})
			}
			asking.Wait()
		}
		var large sync.WaitGroup
		large.Go(func() { answers(3, ordinaryReview+1) })
		time.Sleep(time.Second / 2)
		if n := mostSince(); n != 1 || reads.Load() != 1 {
			t.Errorf("%d large reviews were at work at a time, and %d read, want 1", n, reads.Load())
		}
		began := time.Now()
		answers(10, 4<<10)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("ordinary ones took %v, want them to wait for no large one", took)
		}
		large.Wait()
		mostSince()
		answers(3*maxAtWork/ordinaryReview, ordinaryReview)
		if n := mostSince(); n != maxAtWork/ordinaryReview {
			t.Errorf("%d ordinary reviews of the largest size were at work at a time, want %d", n, maxAtWork/ordinaryReview)
		}
	})
}

// watched is a body that tells when somebody begins to read it.
type watched struct {
	io.Reader
	reads *atomic.Int32
	begun bool
}

// Read implements io.Reader.
func (w *watched) Read(into []byte) (int, error) {
	if !w.begun {
		w.begun = true
		w.reads.Add(1)
	}
	return w.Reader.Read(into)
}

// A class that is on its way out would be gone when kubelet looks for it.
func TestClassThatIsBeingDeletedIsRefused(t *testing.T) {
	m := newMachine(t)
	classes := m.classes()
	m.server.Put(classesOf+"a", strings.Replace(oldClass("a", 0), `"metadata": {`, `"metadata": {"deletionTimestamp": "2030-01-01T00:00:00Z", `, 1))
	err := classes.ensure(t.Context(), "shop", class())
	if err == nil || !strings.Contains(err.Error(), "is just being deleted") {
		t.Errorf("got %v, want that the class is being deleted", err)
	}
	if writes := m.writes(); len(writes) != 0 {
		t.Errorf("got %q, want nothing written", writes)
	}
}
