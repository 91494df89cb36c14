package render

import "testing"

func TestEnv(t *testing.T) {
	check(t, []row{
		{template: `{{ env "POD_NAME" }} {{ env "POD_NAMESPACE" }} {{ env "NAMESPACE" }} {{ env "POD_UID" }} {{ env "SERVICE_ACCOUNT" }}`, want: "web-0 shop shop 4711 web"},
		{template: `{{ mustEnv "POD_NAME" }} {{ "x" | envOrDefault "POD_NAME" }}`, want: "web-0 web-0"},
		{template: `{{ env "PATH" }}`, fails: "env: unknown variable: there are POD_NAME, POD_NAMESPACE, NAMESPACE, POD_UID and SERVICE_ACCOUNT"},
		{template: `{{ mustEnv .canary }}`, fails: "mustEnv: unknown variable"},
		{template: `{{ envOrDefault "HOME" .canary }}`, fails: "envOrDefault: unknown variable"},
		{template: `{{ env "" }}`, fails: "env: unknown variable"},
		{template: `{{ env }}`, fails: "wrong number of args"},
	})
	b := newBench(nil)
	b.run.pod.Name = ""
	if got, err := b.execute(`{{ env "POD_NAME" }}`, nil); err != nil || got != "" {
		t.Errorf("env of an empty variable: got %q, error %v", got, err)
	}
	if _, err := b.execute(`{{ mustEnv "POD_NAME" }}`, nil); err == nil {
		t.Error("mustEnv of an empty variable: got no error")
	}
}

func TestTimestamp(t *testing.T) {
	check(t, []row{
		{template: `{{ timestamp }} {{ timestamp "unix" }} {{ timestamp "2006-01-02 15:04 MST" }}`, want: "2024-02-29T12:04:05Z 1709208245 2024-02-29 12:04 UTC"},
		{template: `{{ timestamp "" }}|{{ timestamp "no layout" }}|{{ timestamp "Monday" }}`, want: "|no layout|Thursday"},
		{template: `{{ timestamp "a" "b" }}`, fails: "timestamp: takes no argument or 1, not 2"},
	})
}
