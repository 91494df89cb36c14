package spec

import (
	"encoding/json"
	"fmt"
	"maps"
)

// CheckParameters holds the parameters of a class, without a pod, against the rules that [Operator.Parse] will apply when
// a pod mounts it. It returns what is no fault but of no use, in sentences, and all faults as [Faults] or nil. A pod may
// still overwrite parameters by its volumeAttributes, and a nodePublishSecretRef may bring what is not looked at here.
func (o Operator) CheckParameters(parameters map[string]string) (useless []string, err error) {
	attributes := maps.Clone(parameters)
	if attributes == nil {
		attributes = make(map[string]string)
	}
	// Who stands in for the pod has a token of whatever audience is wanted.
	audience := attributes["audience"]
	if audience == "" {
		audience = o.Vault.Audience
	}
	token, err := json.Marshal(map[string]any{audience: map[string]string{"token": "none"}})
	if err != nil {
		return nil, fmt.Errorf("the audience cannot be encoded: %w", err)
	}
	for name, value := range map[string]string{
		"csi.storage.k8s.io/pod.namespace":       "none",
		"csi.storage.k8s.io/pod.name":            "none",
		"csi.storage.k8s.io/pod.uid":             "none",
		"csi.storage.k8s.io/serviceAccount.name": "none",
		tokensKey:                                string(token),
	} {
		attributes[name] = value
	}
	text, err := json.Marshal(attributes)
	if err != nil {
		return nil, fmt.Errorf("the parameters cannot be encoded: %w", err)
	}
	mount, err := o.Parse(Request{Attributes: string(text), Permission: "420", TargetPath: "/none"})
	for i, name := range mount.Ignored {
		if i == maxFaults {
			break
		}
		sentence := "parameter " + quote(name) + " means nothing to Leasehold: "
		if near := Nearest(name, knownParameters); near != "" {
			sentence += "did you mean " + near + "?"
		} else {
			sentence += "remove it"
		}
		useless = append(useless, sentence)
	}
	return useless, err
}
