package webhook

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
)

// writeAnnotations writes annotations as readAnnotations reads them: a key without its prefix and a quoted value in a line.
func writeAnnotations(annotations map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if below, ok := strings.CutPrefix(key, annotationPrefix); ok {
			b.WriteString(below + "=" + strconv.Quote(annotations[key]) + "\n")
		}
	}
	return b.String()
}

func readAnnotations(text string) map[string]string {
	annotations := make(map[string]string)
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		if utf8.ValidString(key) && utf8.ValidString(value) { // the API server takes no other text
			annotations[annotationPrefix+key] = value
		}
	}
	return annotations
}

// shaped returns a pod and a policy by the bits of a number.
func shaped(bits uint16) (*corev1.Pod, Policy) {
	bit := func(i int) bool { return bits&(1<<i) != 0 }
	pod := annotated(nil)
	app := &pod.Spec.Containers[0]
	root, other := int64(0), int64(1000)
	if bit(0) {
		pod.Spec.InitContainers = []corev1.Container{{Name: "init"}}
	}
	if bit(1) {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "vault-secrets"})
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: "vault-secrets", MountPath: "/vault/secrets"})
	}
	if bit(2) {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data"})
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: "data", MountPath: "/etc/a/"})
	}
	if bit(3) {
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: "vault-secrets", MountPath: "/etc/a", SubPath: "a"})
	}
	if bit(4) {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &root}
	}
	if bit(5) {
		app.SecurityContext = &corev1.SecurityContext{RunAsUser: &other, RunAsGroup: &root}
	}
	if bit(6) {
		pod.Spec.HostPID = true
	}
	if bit(7) {
		token := &corev1.ServiceAccountTokenProjection{Audience: "vault", Path: "token"}
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "token", VolumeSource: corev1.VolumeSource{
			Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: token}}},
		}})
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: "token", MountPath: "/var/run/serviceaccount"})
	}
	if bit(8) {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "proxy"})
	}
	if bit(9) {
		pod.Spec.Containers = nil
	}
	g := goldenPolicy{Warn: bit(10), Strict: bit(11), SkipVerify: bit(12), ProxyAllowed: bit(13)}
	if bit(14) {
		none := ""
		g.Address = &none
	}
	if bit(15) {
		g.Addresses, g.DefaultRole = []string{"*"}, "{namespace}-{serviceAccount}"
	}
	return pod, g.policy()
}

// FuzzTranslate holds whatever annotations make of a pod to what must be true of every translation.
func FuzzTranslate(f *testing.F) {
	for i, file := range goldenFiles(f) {
		c, pod := readGolden(f, file)
		f.Add(writeAnnotations(pod.Annotations), writeAnnotations(c.Namespace), uint16(i*2654435761>>7))
	}
	f.Fuzz(func(t *testing.T, annotations, namespace string, bits uint16) {
		pod, policy := shaped(bits)
		maps.Copy(pod.Annotations, readAnnotations(annotations))
		checkTranslation(t, policy, pod, readAnnotations(namespace))
	})
}

// TestMixedAnnotations mixes the annotations of the golden files and holds what becomes of them to the same.
func TestMixedAnnotations(t *testing.T) {
	type pair struct{ key, value string }
	var pool []pair
	for _, file := range goldenFiles(t) {
		c, pod := readGolden(t, file)
		for _, annotations := range []map[string]string{pod.Annotations, c.Namespace} {
			for _, key := range slices.Sorted(maps.Keys(annotations)) {
				pool = append(pool, pair{key, annotations[key]})
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	translated := 0
	const rounds = 600
	for range rounds {
		pod, policy := shaped(uint16(random.Uint32()))
		defaults := make(map[string]string)
		for range random.IntN(8) {
			p := pool[random.IntN(len(pool))]
			pod.Annotations[p.key] = p.value
			p = pool[random.IntN(len(pool))]
			if random.IntN(4) == 0 {
				defaults[p.key] = p.value
			}
		}
		if checkTranslation(t, policy, pod, defaults) {
			translated++
		}
	}
	if translated < rounds/10 {
		t.Errorf("only %d of %d pods were translated: the others show little", translated, rounds)
	}
}

// checkTranslation holds the translation of a pod to what must be true of every one, and tells whether there was anything to
// translate.
func checkTranslation(t *testing.T, policy Policy, pod *corev1.Pod, defaults map[string]string) bool {
	t.Helper()
	given := pod.DeepCopy()
	translation, err := policy.Translate(pod, defaults)
	if !equality.Semantic.DeepEqual(pod, given) {
		t.Fatal("the given pod was changed")
	}
	again, errAgain := policy.Translate(pod, defaults)
	if !reflect.DeepEqual(translation, again) || !reflect.DeepEqual(err, errAgain) {
		t.Fatalf("the same pod has two translations:\n%+v %v\n%+v %v", translation, err, again, errAgain)
	}
	if err != nil || translation.Skipped != "" {
		if !equality.Semantic.DeepEqual(translation.Pod, given) || len(translation.Classes) > 0 {
			t.Fatal("something is done to a pod that is denied or skipped")
		}
		return false
	}
	checkClasses(t, policy, translation)
	checkMounts(t, translation.Pod)

	twice, err := policy.Translate(translation.Pod, defaults)
	if err != nil {
		t.Fatalf("the translated pod is denied: %v", err)
	}
	if !equality.Semantic.DeepEqual(twice.Pod, translation.Pod) {
		t.Fatalf("the second translation changes the pod:\n%+v\n%+v", translation.Pod, twice.Pod)
	}
	if !reflect.DeepEqual(twice.Classes, translation.Classes) {
		t.Fatalf("the second translation changes the classes:\n%v\n%v", translation.Classes, twice.Classes)
	}
	return true
}

// checkClasses looks whether each class is one that the provider takes, under a name that Kubernetes takes, and whether the
// volumes name just these.
func checkClasses(t *testing.T, policy Policy, translation Translation) {
	t.Helper()
	var made, named []string
	operator := policy.operator()
	operator.CheckTemplate = policy.CheckTemplate
	for _, c := range translation.Classes {
		if _, err := operator.CheckParameters(c.Parameters); err != nil {
			t.Fatalf("the provider refuses class %v: %v", c.Parameters, err)
		}
		if len(validation.IsDNS1123Label(c.Name)) > 0 || c.Name != className(c.Provider, c.Parameters) {
			t.Fatalf("class %q has a wrong name", c.Name)
		}
		made = append(made, c.Name)
	}
	for _, v := range translation.Pod.Spec.Volumes {
		if isOurs(v) {
			named = append(named, v.CSI.VolumeAttributes[classAttribute])
		}
	}
	slices.Sort(made)
	slices.Sort(named)
	if !slices.Equal(made, named) {
		t.Fatalf("the pod names the classes %q, made are %q", named, made)
	}
}

// checkMounts looks for what the API server would refuse.
func checkMounts(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	volumes := make(map[string]bool)
	for _, v := range pod.Spec.Volumes {
		if volumes[v.Name] || len(validation.IsDNS1123Label(v.Name)) > 0 {
			t.Fatalf("volume %q is wrong, or there twice", v.Name)
		}
		volumes[v.Name] = true
	}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		paths := make(map[string]bool)
		for _, m := range c.VolumeMounts {
			if paths[m.MountPath] || !volumes[m.Name] {
				t.Fatalf("container %q: mount %q of volume %q is wrong, or there twice", c.Name, m.MountPath, m.Name)
			}
			paths[m.MountPath] = true
		}
	}
}
