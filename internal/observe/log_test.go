package observe

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
)

func TestLoggerFormats(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, slog.LevelInfo, "json")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("mounted", KeyPod, "shop/app-0", KeyCount, 2)
	var record struct {
		Level, Msg, Pod string
		Count           int
	}
	if err := json.Unmarshal(out.Bytes(), &record); err != nil {
		t.Fatalf("json: got %q: %v", out.String(), err)
	}
	if record.Level != "INFO" || record.Msg != "mounted" || record.Pod != "shop/app-0" || record.Count != 2 {
		t.Errorf("json: got %+v", record)
	}

	out.Reset()
	if log, err = NewLogger(&out, slog.LevelInfo, "text"); err != nil {
		t.Fatal(err)
	}
	log.Info("mounted", KeyPod, "shop/app-0", KeyCount, 2)
	if got, want := out.String(), "level=INFO msg=mounted pod=shop/app-0 count=2\n"; !strings.HasSuffix(got, want) {
		t.Errorf("text: got %q, want it to end with %q", got, want)
	}
}

func TestLoggerLevels(t *testing.T) {
	levels := []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	for i, least := range levels {
		for _, format := range []string{"json", "text"} {
			var out bytes.Buffer
			log, err := NewLogger(&out, least, format)
			if err != nil {
				t.Fatal(err)
			}
			for _, level := range levels {
				log.Log(t.Context(), level, "test")
			}
			if got, want := strings.Count(out.String(), "\n"), len(levels)-i; got != want {
				t.Errorf("%s at level %v: got %d records, want %d", format, least, got, want)
			}
		}
	}
}

func TestLoggerOfUnknownFormat(t *testing.T) {
	_, err := NewLogger(&bytes.Buffer{}, slog.LevelInfo, "yaml")
	if err == nil || !strings.Contains(err.Error(), `"yaml": must be json or text`) {
		t.Errorf("got error %v, want one that names the format and what it may be", err)
	}
}

// One thing has one name: two keys of one name would hide each other in a record.
func TestKeysDiffer(t *testing.T) {
	keys := []string{
		KeyError, KeyPod, KeyPodUID, KeyVolume, KeyVault, KeyRole, KeyAccessor, KeyMethod, KeyCode, KeyDuration, KeyParameter,
		KeyCount,
	}
	seen := map[string]bool{slog.TimeKey: true, slog.LevelKey: true, slog.MessageKey: true, slog.SourceKey: true}
	for _, key := range keys {
		if seen[key] {
			t.Errorf("the key %q is there twice", key)
		}
		seen[key] = true
	}
}
