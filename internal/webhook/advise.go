package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"leasehold/internal/observe"
	"leasehold/internal/spec"
)

// workload is what makes pods, as far as it concerns us: a Deployment, StatefulSet, DaemonSet or Job, or, one floor deeper,
// a CronJob.
type workload struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Template    *corev1.PodTemplateSpec `json:"template"`
		JobTemplate *struct {
			metav1.ObjectMeta `json:"metadata"`
			Spec              struct {
				Template *corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
}

// advice is a verdict that never blocks.
func advice(warnings []string) verdict {
	if len(warnings) == 0 {
		return verdict{outcome: outcomeSkipped}
	}
	return verdict{outcome: outcomeAdvised, warnings: warnings}
}

// adviseWorkload tells the author of a workload what its pods will get. What is said when a pod is made reaches nobody: a
// controller makes it.
func (h *handler) adviseWorkload(ctx context.Context, request *admissionv1.AdmissionRequest) verdict {
	w := &workload{}
	if json.Unmarshal(request.Object.Raw, w) != nil {
		return h.noAdvice(request, errors.New("the workload in the review cannot be read"))
	}
	kind := request.Kind.Kind
	template, path := w.Spec.Template, "spec.template.metadata.annotations"
	var floors []map[string]string // of annotations that pods do not get
	floors = append(floors, w.Annotations)
	if job := w.Spec.JobTemplate; job != nil {
		template, path = job.Spec.Template, "spec.jobTemplate.spec.template.metadata.annotations"
		floors = append(floors, job.Annotations)
	}
	if template == nil {
		return advice(nil)
	}
	var warnings []string
	for _, floor := range floors {
		if keys := misplaced(floor, template.Annotations); len(keys) > 0 {
			warnings = append(warnings, fmt.Sprintf("%s: no effect on the %s itself: move it to %s, which its pods get",
				strings.Join(keys, ", "), kind, path))
		}
	}
	if len(ours(template.Annotations)) == 0 {
		return advice(warnings)
	}
	if _, asked := template.Annotations[injectKey]; !asked {
		return advice(append(warnings, notAsked(template.Annotations)...))
	}
	defaults, err := h.Namespaces.Annotations(ctx, request.Namespace)
	if err != nil {
		return h.noAdvice(request, err)
	}
	pod := &corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
	pod.Namespace = request.Namespace
	translation, err := h.Policy.Translate(pod, defaults)
	denial := Denial(nil)
	switch {
	case errors.As(err, &denial):
		for _, reason := range denial {
			warnings = append(warnings, fmt.Sprintf("pods of this %s will be refused: %s", kind, reason))
		}
	case err != nil:
		return h.noAdvice(request, err)
	}
	return advice(append(warnings, translation.Warnings...))
}

// misplaced returns our keys, sorted, that are on the workload and not on its pods.
func misplaced(workload, pods map[string]string) []string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(ours(workload))) {
		if _, there := pods[key]; !there {
			keys = append(keys, key)
		}
	}
	return keys
}

// notAsked tells what annotations without the one that switches us on are worth.
func notAsked(annotations map[string]string) []string {
	var others []string
	for _, key := range slices.Sorted(maps.Keys(ours(annotations))) {
		if suggest(strings.TrimPrefix(key, annotationPrefix)) == strings.TrimPrefix(injectKey, annotationPrefix) {
			return []string{fmt.Sprintf("%s is not known: did you mean %s? Without it the pods get no secrets", key, injectKey)}
		}
		others = append(others, key)
	}
	if _, done := annotations[statusKey]; done && len(others) == 1 {
		return nil
	}
	return []string{fmt.Sprintf("%s: no effect without %s: \"true\"", strings.Join(others, ", "), injectKey)}
}

// adviseClass tells the author of a class what is wrong with it. Otherwise the first pod would.
func (h *handler) adviseClass(_ context.Context, request *admissionv1.AdmissionRequest) verdict {
	class := &secretProviderClass{}
	if json.Unmarshal(request.Object.Raw, class) != nil {
		return h.noAdvice(request, errors.New("the class in the review cannot be read"))
	}
	if class.Spec.Provider != h.Policy.ProviderName || class.Labels[LabelMadeBy] == madeBy {
		return advice(nil)
	}
	useless, err := h.Operator.CheckParameters(class.Spec.Parameters)
	faults := spec.Faults(nil)
	if err != nil && !errors.As(err, &faults) {
		return h.noAdvice(request, err)
	}
	var warnings []string
	for _, fault := range faults {
		warnings = append(warnings, "pods cannot mount this class: "+fault)
	}
	return advice(append(warnings, useless...))
}

// noAdvice lets something pass that nothing can be said about.
func (h *handler) noAdvice(request *admissionv1.AdmissionRequest, err error) verdict {
	h.Log.Warn("no advice", "kind", request.Kind.Kind, "object", request.Namespace+"/"+request.Name, observe.KeyError, err)
	return verdict{outcome: outcomeFailed}
}
