package vaulttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// reply is an answer.
type reply struct {
	status int
	body   any
}

// done is the answer of a write that has nothing to say.
func done() reply { return reply{status: http.StatusNoContent} }

// fail answers with errors. Texts are those of Vault 1.21.
func fail(status int, texts ...string) reply {
	if texts == nil {
		texts = []string{}
	}
	return reply{status, Data{"errors": texts}}
}

// failList answers as Vault does where its core has collected errors in a list.
func failList(status int, texts ...string) reply {
	head := "1 error occurred:"
	if len(texts) > 1 {
		head = fmt.Sprintf("%d errors occurred:", len(texts))
	}
	return fail(status, head+"\n\t* "+strings.Join(texts, "\n\t* ")+"\n\n")
}

func denied() reply { return failList(http.StatusForbidden, "permission denied") }
func invalidToken() reply {
	return failList(http.StatusForbidden, "permission denied", "invalid token")
}
func missing() reply     { return fail(http.StatusNotFound) }
func unsupported() reply { return failList(http.StatusMethodNotAllowed, "unsupported operation") }

// secret answers with data and, if l is not nil, its lease.
func secret(data any, l *lease) reply { return full(http.StatusOK, data, l, nil, nil) }

// full answers with everything that Vault's answers have.
func full(status int, data any, l *lease, warnings []string, auth any) reply {
	body := Data{
		"request_id": random(16), "lease_id": "", "renewable": false, "lease_duration": 0,
		"data": data, "wrap_info": nil, "warnings": warnings, "auth": auth, "mount_type": "",
	}
	if l != nil {
		body["lease_id"], body["renewable"], body["lease_duration"] = l.id, l.renewable, int(l.life.Seconds())
	}
	return reply{status, body}
}

// arguments reads a request's body, with the errors of Vault's parser.
func arguments(body []byte) (Data, *reply) {
	if len(body) == 0 {
		return Data{}, nil
	}
	var data Data
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.UseNumber()
	if err := decoder.Decode(&data); err != nil {
		var r reply
		if json.Valid(body) {
			r = fail(http.StatusBadRequest, "error parsing JSON: failed to parse JSON input: "+
				"json: cannot unmarshal array into Go value of type map[string]interface {}")
		} else {
			r = fail(http.StatusInternalServerError, "malformed JSON, unclosed containers")
		}
		return nil, &r
	}
	return data, nil
}
