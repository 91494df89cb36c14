package webhooktest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// ApplyPatch applies a JSON patch (RFC 6902, the operations add, replace, remove and test) as the API server does, and
// refuses what that refuses.
func ApplyPatch(document, patch []byte) ([]byte, error) {
	var root any
	if err := json.Unmarshal(document, &root); err != nil {
		return nil, err
	}
	var operations []struct {
		Op, Path string
		Value    any
	}
	if err := json.Unmarshal(patch, &operations); err != nil {
		return nil, err
	}
	for _, o := range operations {
		keys := strings.Split(o.Path, "/")
		if keys[0] != "" || len(keys) < 2 {
			return nil, fmt.Errorf("%s %q: no path", o.Op, o.Path)
		}
		for i := range keys {
			keys[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(keys[i])
		}
		changed, err := apply(root, o.Op, keys[1:], o.Value)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", o.Op, o.Path, err)
		}
		root = changed
	}
	return json.Marshal(root)
}

// apply returns the node with the operation done at the path below it.
func apply(node any, op string, keys []string, value any) (any, error) {
	switch node := node.(type) {
	case map[string]any:
		return applyToObject(node, op, keys, value)
	case []any:
		return applyToArray(node, op, keys, value)
	}
	return nil, fmt.Errorf("%q is below something that has no parts", keys[0])
}

func applyToObject(node map[string]any, op string, keys []string, value any) (any, error) {
	key := keys[0]
	old, there := node[key]
	if !there && (op != "add" || len(keys) > 1) {
		return nil, fmt.Errorf("%q is not there", key)
	}
	if len(keys) > 1 {
		changed, err := apply(old, op, keys[1:], value)
		node[key] = changed
		return node, err
	}
	switch op {
	case "add", "replace":
		node[key] = value
	case "remove":
		delete(node, key)
	case "test":
		if !reflect.DeepEqual(old, value) {
			return nil, fmt.Errorf("%q has another value", key)
		}
	default:
		return nil, fmt.Errorf("unknown operation")
	}
	return node, nil
}

func applyToArray(node []any, op string, keys []string, value any) (any, error) {
	if keys[0] == "-" && op == "add" && len(keys) == 1 {
		return append(node, value), nil
	}
	i, err := strconv.Atoi(keys[0])
	if err != nil || i < 0 || i > len(node) || i == len(node) && (op != "add" || len(keys) > 1) {
		return nil, fmt.Errorf("%q is no index of %d elements", keys[0], len(node))
	}
	if len(keys) > 1 {
		changed, err := apply(node[i], op, keys[1:], value)
		node[i] = changed
		return node, err
	}
	switch op {
	case "add":
		return slices.Insert(node, i, value), nil
	case "replace":
		node[i] = value
	case "remove":
		return slices.Delete(node, i, i+1), nil
	case "test":
		if !reflect.DeepEqual(node[i], value) {
			return nil, fmt.Errorf("%q has another value", keys[0])
		}
	default:
		return nil, fmt.Errorf("unknown operation")
	}
	return node, nil
}
