// Package observe is what an operator sees of a running Leasehold: its log, its metrics and its health.
package observe

import (
	"fmt"
	"io"
	"log/slog"
)

// The keys of log records. One thing has one name in every record.
const (
	KeyError     = "error"
	KeyPod       = "pod"       // namespace/name
	KeyPodUID    = "pod_uid"   //
	KeyVolume    = "volume"    // target path
	KeyVault     = "vault"     // address
	KeyRole      = "role"      // Vault role
	KeyAccessor  = "accessor"  // of a Vault token; it cannot be used in the token's place
	KeyMethod    = "method"    // gRPC method
	KeyCode      = "code"      // gRPC code
	KeyDuration  = "duration"  // of a call
	KeyParameter = "parameter" // of a SecretProviderClass
	KeyCount     = "count"
)

// NewLogger returns a logger that writes records of at least the given level to w, in the format "json" or "text".
func NewLogger(w io.Writer, level slog.Level, format string) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	default:
		return nil, fmt.Errorf("log format %q: must be json or text", format)
	}
}
