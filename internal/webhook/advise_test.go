package webhook

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// workloadText is a workload with annotations of its own and of its pods.
func workloadText(kind string, own, pods map[string]string) string {
	whole := func(annotations map[string]string) map[string]any {
		m := make(map[string]string)
		for key, value := range annotations {
			m[annotationPrefix+key] = value
		}
		return map[string]any{"annotations": m}
	}
	template := map[string]any{"template": map[string]any{
		"metadata": whole(pods),
		"spec":     map[string]any{"containers": []any{map[string]any{"name": "app", "image": "app"}}},
	}}
	spec := template
	if kind == "CronJob" {
		spec = map[string]any{"jobTemplate": map[string]any{"spec": template}}
	}
	text, err := json.Marshal(map[string]any{"kind": kind, "metadata": whole(own), "spec": spec})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestAdviceForWorkloads(t *testing.T) {
	without := map[string]string{"agent-inject": "true", "agent-inject-secret-a": "kv/a"}
	for name, row := range map[string]struct {
		kind      string
		own, pods map[string]string
		want      []string // a part of each warning
	}{
		"nothing of ours":      {kind: "Deployment"},
		"as it should be":      {kind: "Deployment", pods: introduction},
		"switched off":         {kind: "Deployment", pods: map[string]string{"agent-inject": "false", "agent-inject-secret-a": "kv/a"}},
		"will be refused":      {kind: "Deployment", pods: without, want: []string{"pods of this Deployment will be refused: "}},
		"refused in a CronJob": {kind: "CronJob", pods: without, want: []string{"pods of this CronJob will be refused: "}},
		"will be refused, and warned": {
			kind: "Deployment", pods: map[string]string{"agent-inject": "true", "agent-inject-secret-a": "kv/a", "rol": "app"},
			want: []string{"pods of this Deployment will be refused: ", "vault.hashicorp.com/rol: unknown"},
		},
		"on the Deployment itself": {
			kind: "Deployment", own: map[string]string{"agent-inject": "true", "role": "app"},
			want: []string{"vault.hashicorp.com/agent-inject, vault.hashicorp.com/role: no effect on the Deployment itself: move it to spec.template.metadata.annotations"},
		},
		"on the CronJob itself": {
			kind: "CronJob", own: map[string]string{"agent-inject": "true"},
			want: []string{"no effect on the CronJob itself: move it to spec.jobTemplate.spec.template.metadata.annotations"},
		},
		"on both":       {kind: "StatefulSet", own: introduction, pods: introduction},
		"not asked for": {kind: "Job", pods: map[string]string{"role": "app"}, want: []string{`vault.hashicorp.com/role: no effect without vault.hashicorp.com/agent-inject: "true"`}},
		"misspelt": {
			kind: "DaemonSet", pods: map[string]string{"agent-injct": "true", "role": "app"},
			want: []string{"vault.hashicorp.com/agent-injct is not known: did you mean vault.hashicorp.com/agent-inject?"},
		},
		"somebody else's": {kind: "Deployment", pods: map[string]string{"agent-inject-status": "injected"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			text := workloadText(row.kind, row.own, row.pods)
			response := ask(t, m.handler(), PathWorkloads, request("workloads", row.kind, text))
			if !response.Allowed || len(response.Patch) != 0 {
				t.Errorf("got %+v, want it allowed as it is", response)
			}
			if len(response.Warnings) != len(row.want) {
				t.Fatalf("got warnings %q, want %q", response.Warnings, row.want)
			}
			for i, want := range row.want {
				if !strings.Contains(response.Warnings[i], want) {
					t.Errorf("got warning %q, want %q", response.Warnings[i], want)
				}
			}
			m.wantClasses(0)
			if writes := m.writes(); len(writes) != 0 {
				t.Errorf("got %q, want nothing written", writes)
			}
		})
	}
}

func TestAdviceForClasses(t *testing.T) {
	classText := func(provider, label, parameters string) string {
		return `{"kind": "SecretProviderClass", "metadata": {"name": "a", "labels": {"` + LabelMadeBy + `": "` + label + `"}},
			"spec": {"provider": "` + provider + `", "parameters": ` + parameters + `}}`
	}
	const good = `{"roleName": "app", "objects": "- {objectName: a, secretPath: kv/a}"}`
	for name, row := range map[string]struct {
		class string
		want  []string
	}{
		"good":               {classText("vault", "", good), nil},
		"another provider's": {classText("other", "", `{}`), nil},
		"our own":            {classText("vault", madeBy, `{}`), nil},
		"faults": {classText("vault", "", `{"rolName": "app"}`), []string{
			"pods cannot mount this class: parameter roleName is missing", "parameter objects is missing", "did you mean roleName?",
		}},
		"foreign address": {classText("vault", "", strings.Replace(good, `{`, `{"vaultAddress": "https://evil.example", `, 1)), []string{"outside the operator's policy"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			response := ask(t, m.handler(), PathClasses, request("secretproviderclasses", "SecretProviderClass", row.class))
			if !response.Allowed || len(response.Patch) != 0 || len(response.Warnings) != len(row.want) {
				t.Fatalf("got %+v, want it allowed with %q", response, row.want)
			}
			for i, want := range row.want {
				if !strings.Contains(response.Warnings[i], want) {
					t.Errorf("got warning %q, want %q", response.Warnings[i], want)
				}
			}
		})
	}
}

// Advice that cannot be given holds up nothing.
func TestAdviceNeverBlocks(t *testing.T) {
	m := newMachine(t)
	h := m.handler()
	m.on(http.MethodGet, "/shop", status(500, metav1.StatusReasonInternalError))
	for name, response := range map[string]struct{ path, object string }{
		"no namespace":         {PathWorkloads, workloadText("Deployment", nil, introduction)},
		"no workload":          {PathWorkloads, `{"metadata": 1}`},
		"without pods":         {PathWorkloads, `{"spec": {}}`},
		"no class":             {PathClasses, `{"metadata": 1}`},
		"a class of no fields": {PathClasses, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ask(t, h, response.path, request("things", "Thing", response.object)); !got.Allowed || len(got.Warnings) != 0 {
				t.Errorf("got %+v, want it allowed", got)
			}
		})
	}
}
