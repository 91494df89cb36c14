package render

import (
	"fmt"
	"strconv"
	"time"
)

// variable returns one of the few facts about the pod that templates may ask for. The environment is the provider's and none
// of the pod's business, and an empty text in its place would end in a file unnoticed.
func (m *machine) variable(function, name string) (string, error) {
	pod := m.run.pod
	switch name {
	case "POD_NAME":
		return pod.Name, nil
	case "POD_NAMESPACE", "NAMESPACE":
		return pod.Namespace, nil
	case "POD_UID":
		return pod.UID, nil
	case "SERVICE_ACCOUNT":
		return pod.ServiceAccount, nil
	}
	return "", fault(function + ": unknown variable: there are POD_NAME, POD_NAMESPACE, NAMESPACE, POD_UID and " +
		"SERVICE_ACCOUNT; write anything else into the template")
}

func (m *machine) env(name string) (string, error) { return m.variable("env", name) }

func (m *machine) mustEnv(name string) (string, error) {
	value, err := m.variable("mustEnv", name)
	if err == nil && value == "" {
		err = fault("mustEnv: the variable is empty")
	}
	return value, err
}

// envOrDefault needs its default for no variable that there is: each has a value, if only an empty one.
func (m *machine) envOrDefault(name, _ string) (string, error) {
	return m.variable("envOrDefault", name)
}

// timestamp tells when the newest of the template's credentials was obtained, in UTC: by RFC 3339, in seconds since 1970
// ("unix"), or in a layout of Go's. A clock would make another file each time.
func (m *machine) timestamp(layout ...string) (string, error) {
	at := m.now().UTC()
	switch {
	case len(layout) > 1:
		return "", fault(fmt.Sprintf("timestamp: takes no argument or 1, not %d", len(layout)))
	case len(layout) == 0:
		return at.Format(time.RFC3339), nil
	case layout[0] == "unix":
		return strconv.FormatInt(at.Unix(), 10), nil
	}
	return at.Format(layout[0]), nil
}
