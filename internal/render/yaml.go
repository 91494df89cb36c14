package render

import (
	"strings"

	"go.yaml.in/yaml/v2"
	nodes "go.yaml.in/yaml/v3"
)

// Templates expect what version 2 of the package makes of YAML: yes is true, and a map has keys of any type. Version 3 has
// trees in which an alias is not yet what it stands for, and is used to look before version 2 follows it.

// Bounds of what is parsed as YAML. It takes far more memory and time than JSON.
const (
	maxYAML         = 128 << 10 // bytes
	maxYAMLBrackets = 5000      // "{" and "[": the time grows with the square of their depth
	maxYAMLValues   = 50_000    // values of a text that has aliases, each counted where it stands for something
	sizeOfYAML      = 100       // bytes that a byte of YAML takes at most while it is parsed
	sizeOfYAMLValue = 250       // bytes that a value of YAML takes at most
)

// parseYAML makes values of the first document of a YAML text.
func (m *machine) parseYAML(text string) (any, error) {
	switch {
	case text == "":
		return map[string]any{}, nil
	case len(text) > maxYAML:
		return nil, fault("parseYAML: the text is longer than 128 KiB: use parseJSON, if it is JSON")
	case strings.Count(text, "{")+strings.Count(text, "[") > maxYAMLBrackets:
		return nil, fault("parseYAML: the text has more than 5000 opening brackets: use parseJSON, if it is JSON")
	}
	if err := m.run.room(sizeOfYAML * len(text)); err != nil {
		return nil, err
	}
	if strings.Contains(text, "&") && strings.Contains(text, "*") {
		values, err := countYAML(text)
		if err != nil {
			return nil, err
		}
		if err := m.run.room(sizeOfYAMLValue * values); err != nil {
			return nil, err
		}
	}
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		return nil, fault("parseYAML: the text is not YAML")
	}
	return value, nil
}

// countYAML returns how many values a text has, once each alias is what it stands for. A few lines can have billions.
func countYAML(text string) (int, error) {
	var document nodes.Node
	if err := nodes.Unmarshal([]byte(text), &document); err != nil {
		return 0, fault("parseYAML: the text is not YAML")
	}
	values := yamlCount{}.of(&document)
	if values > maxYAMLValues {
		return 0, fault("parseYAML: the text has more than 50000 values, with those that its aliases stand for")
	}
	return values, nil
}

// yamlCount has how many values each node is that an alias stands for. While it is counted it is too many: it would contain
// itself.
type yamlCount map[*nodes.Node]int

func (c yamlCount) of(node *nodes.Node) int {
	if node.Kind == nodes.AliasNode {
		if _, known := c[node.Alias]; !known {
			c[node.Alias] = maxYAMLValues + 1
			c[node.Alias] = c.of(node.Alias)
		}
		return c[node.Alias]
	}
	values := 1
	for _, inner := range node.Content {
		values = min(values+c.of(inner), maxYAMLValues+1)
	}
	return values
}

func (m *machine) toYAML(value any) (string, error) {
	out := sink{room: m.run.room}
	encoder := yaml.NewEncoder(&out)
	err := encoder.Encode(value)
	if err == nil {
		err = encoder.Close()
	}
	return out.written("toYAML: the value cannot be written as YAML", err)
}
