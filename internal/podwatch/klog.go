package podwatch

import (
	"context"
	"log/slog"

	"k8s.io/klog/v2"
)

// RouteLogs makes client-go log to this logger instead of standard error. It is for the whole program: call it once,
// before anything is made that uses client-go.
//
// What client-go says beyond its level 4 is never let through, whatever the logger's own level: from level 8 on it
// prints the bodies of requests and answers, and those hold tokens.
func RouteLogs(log *slog.Logger) {
	klog.SetSlogLogger(slog.New(capped{log.Handler()}))
}

// capped lets nothing through that is more talkative than slog's debug level, which is client-go's level 4.
type capped struct{ slog.Handler }

func (c capped) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelDebug && c.Handler.Enabled(ctx, level)
}

func (c capped) WithAttrs(attributes []slog.Attr) slog.Handler {
	return capped{c.Handler.WithAttrs(attributes)}
}

func (c capped) WithGroup(name string) slog.Handler { return capped{c.Handler.WithGroup(name)} }
