package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"leasehold/internal/lease"
	"leasehold/internal/observe"
	"leasehold/internal/spec"
)

// statusSocket is where the instance that answers on the node tells what it holds.
func statusSocket(stateDir, name string) string {
	return filepath.Join(journalDir(stateDir, name), "status.sock")
}

const (
	longestSocket = 107              // characters of a socket's path, which the kernel limits
	statusTimeout = 10 * time.Second // for the provider's answer, which it gives from memory
)

// volumeStatus is what is known of one volume, as it goes over the socket and as -o json prints it. Its names do not
// change. There is no secret in it: a token is named by its accessor.
type volumeStatus struct {
	Namespace string       `json:"namespace"`
	Pod       string       `json:"pod"`
	UID       string       `json:"uid"`
	Target    string       `json:"target"` // the volume's path on the node
	Vault     string       `json:"vault"`
	Role      string       `json:"role"`
	Ended     bool         `json:"ended"` // the pod has ended: all of it is to be given back
	Items     []itemStatus `json:"items"`
	Error     string       `json:"error,omitempty"`
	ErrorAt   time.Time    `json:"errorAt,omitzero"`
}

// itemStatus is one thing that is held for a volume.
type itemStatus struct {
	Kind   string    `json:"kind"`           // token, lease, certificate, static or secret
	Source string    `json:"source"`         // path in Vault; of a token its accessor
	State  string    `json:"state"`          // held, due, over or unwanted
	End    time.Time `json:"end,omitzero"`   // by which it ends if nothing is done
	Next   string    `json:"next,omitempty"` // renew, replace or revoke
	At     time.Time `json:"at,omitzero"`    // of Next
}

// volumesOf puts what the keeper tells into these words, in its order: by pod, and of a volume its token first.
func volumesOf(all []lease.Status) []volumeStatus {
	volumes := make([]volumeStatus, 0, len(all))
	for _, v := range all {
		items := make([]itemStatus, 0, len(v.Items))
		for _, item := range v.Items {
			items = append(items, itemStatus(item))
		}
		volumes = append(volumes, volumeStatus{
			Namespace: v.Namespace, Pod: v.Pod, UID: v.UID, Target: v.Target, Vault: v.Vault, Role: v.Role, Ended: v.Ended,
			Items: items, Error: v.Error, ErrorAt: v.ErrorAt,
		})
	}
	return volumes
}

// heldOf sums up what the keeper tells, for the metrics and for people.
func heldOf(volumes []volumeStatus) observe.Held {
	held := observe.Held{Volumes: len(volumes), Leases: map[string]int{
		lease.StateHeld: 0, lease.StateDue: 0, lease.StateOver: 0, lease.StateUnwanted: 0,
	}}
	for _, v := range volumes {
		for _, item := range v.Items {
			held.Leases[item.State]++
			if item.missedAtItsEnd() && (held.End.IsZero() || item.End.Before(held.End)) {
				held.End = item.End
			}
		}
	}
	return held
}

// missedAtItsEnd tells whether a pod would miss the item at its end, or misses it, since that is past. What is unwanted
// nobody misses. A static role's password ends and is read anew at each of its rotations: that is no alarm.
func (i itemStatus) missedAtItsEnd() bool {
	return !i.End.IsZero() && i.State != lease.StateUnwanted && i.Kind != "static"
}

// listenStatus binds the socket of "provider status" at path, whose directory nobody but this user may enter. Only the
// instance with the lock may call it: a socket that it finds there was left behind by one that was killed.
func listenStatus(ctx context.Context, path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// statusHandler answers GET / with what is held, in JSON.
func statusHandler(status func() []lease.Status) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(volumesOf(status())) // whoever asked has gone
	})
	return mux
}

// runStatus is "provider status": it asks the running instance and prints what it holds. It returns the exit status: 0,
// 1 if nobody answers, and 2 if the arguments are wrong.
func runStatus(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("provider status", flag.ContinueOnError)
	flags.SetOutput(stderr)
	stateDir := flags.String("state-dir", "/run/leasehold", "the provider's `directory` of the same flag")
	name := flags.String("provider-name", "vault", "the provider's `name`")
	output := flags.String("o", "table", "`format`: table or json")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // it has been printed
	case len(flags.Args()) > 0:
		err = fmt.Errorf("unexpected arguments: %q", flags.Args())
	case *output != "table" && *output != "json":
		err = fmt.Errorf("-o: %q is neither table nor json", *output)
	case !driverName.MatchString(*name):
		err = fmt.Errorf("-provider-name: %q must be 1 to 30 letters, digits, _ or -", *name)
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "provider status:", err)
		return 2
	}

	volumes, err := askStatus(ctx, statusSocket(*stateDir, *name))
	if err == nil && *output == "json" {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(volumes)
	} else if err == nil {
		_, err = io.WriteString(stdout, table(volumes, *name, time.Now()))
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "provider status:", err)
		return 1
	}
	return 0
}

// askStatus asks the instance behind the socket.
func askStatus(ctx context.Context, socket string) ([]volumeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", socket)
		},
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://provider/", nil)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	var dialing *net.OpError
	if errors.As(err, &dialing) && dialing.Op == "dial" {
		return nil, fmt.Errorf("no provider answers: %w; it runs on this node only if its pod is there and has begun to serve, and "+
			"-state-dir and -provider-name must be the ones that it was started with", dialing)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the provider answers %s: is it of another version?", response.Status)
	}
	var volumes []volumeStatus
	if err := json.NewDecoder(response.Body).Decode(&volumes); err != nil {
		return nil, fmt.Errorf("read the provider's answer: %w", err)
	}
	return volumes, nil
}

// table is what people read: a line for each thing that is held, and a summary.
func table(volumes []volumeStatus, name string, now time.Time) string {
	if len(volumes) == 0 {
		return fmt.Sprintf("Nothing is held: no pod of this node has a volume of the provider %q.\n", name)
	}
	var out strings.Builder
	columns := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	line := func(cells ...string) {
		for i, cell := range cells {
			cells[i] = printable(cell)
		}
		_, _ = fmt.Fprintln(columns, strings.Join(cells, "\t")) // of a strings.Builder: never fails
	}
	line("POD", "VOLUME", "ROLE", "SOURCE", "STATE", "TIME LEFT", "NEXT", "LAST ERROR")
	for _, v := range volumes {
		pod := v.Namespace + "/" + v.Pod
		if v.Ended {
			pod += " (ended)"
		}
		trouble := "" // once for each volume
		if v.Error != "" {
			trouble = v.Error
			if !v.ErrorAt.IsZero() {
				trouble += fmt.Sprintf(" (%s ago)", rough(now.Sub(v.ErrorAt)))
			}
		}
		if len(v.Items) == 0 {
			line(pod, spec.VolumeName(v.Target), v.Role, "", "", "", "", trouble)
		}
		for _, item := range v.Items {
			source := item.Source
			if item.Kind == "token" {
				source = "token " + item.Source
			}
			line(pod, spec.VolumeName(v.Target), v.Role, source, item.State, timeLeft(item.End, now), next(item, now), trouble)
			trouble = ""
		}
	}
	_ = columns.Flush() // of a strings.Builder
	return out.String() + "\n" + summary(volumes, now) + "\n"
}

// summary is one sentence about all of it.
func summary(volumes []volumeStatus, now time.Time) string {
	pods, troubled := make(map[string]bool), 0
	for _, v := range volumes {
		pods[v.UID] = true
		if v.Error != "" {
			troubled++
		}
	}
	held := heldOf(volumes)
	states, end := held.Leases, held.End
	text := fmt.Sprintf("%s of %s: %d held, %d due, %d over, %d unwanted.", number(len(volumes), "volume"), number(len(pods), "pod"),
		states[lease.StateHeld], states[lease.StateDue], states[lease.StateOver], states[lease.StateUnwanted])
	switch {
	case end.IsZero():
	case end.After(now):
		text += fmt.Sprintf(" Time left to the first end: %s.", timeLeft(end, now))
	default:
		text += fmt.Sprintf(" The first end was %s ago.", rough(now.Sub(end)))
	}
	if troubled > 0 {
		text += fmt.Sprintf(" An error in %s.", number(troubled, "volume"))
	}
	return text
}

func number(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return fmt.Sprintf("%d %s", n, of)
}

func timeLeft(end, now time.Time) string {
	switch {
	case end.IsZero():
		return ""
	case !end.After(now):
		return "none"
	default:
		return rough(end.Sub(now))
	}
}

func next(item itemStatus, now time.Time) string {
	switch {
	case item.Next == "" || item.At.IsZero():
		return item.Next
	case !item.At.After(now):
		return item.Next + " now"
	default:
		return item.Next + " in " + rough(item.At.Sub(now))
	}
}

// rough is a duration in its two largest units, such as 12s, 5m3s, 7h30m or 31d4h.
func rough(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(d, 0)/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	}
}

// printable is a text for a cell of the table: paths and errors hold what tenants and Vault wrote, and a terminal obeys
// more than letters. An empty one is a dash, so that columns can be told apart.
func printable(text string) string {
	if text == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}
