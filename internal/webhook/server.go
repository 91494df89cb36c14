package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"leasehold/internal/observe"
)

// Server answers the API server over TLS.
type Server struct {
	handler      http.Handler
	certificates *Certificates
	drain        time.Duration
	log          *slog.Logger
}

const (
	// stopTimeout is how long the admissions at work may take at the end: more than the API server waits for one.
	stopTimeout = 15 * time.Second

	// unusedTimeout is how long a connection may be unused, from its beginning on or after a review: longer than the API server
	// keeps one (90 s). It makes connections before it needs them, and if we closed one, it could be with a review on its way.
	unusedTimeout = 2 * time.Minute

	// bodyTimeout is how long the body of a review may take to come in: more than the API server waits. When it is over there
	// must be time to say so within answerTimeout, which counts from the same moment.
	bodyTimeout   = 15 * time.Second
	answerTimeout = 30 * time.Second
)

// NewServer returns a server of a handler. At its end it serves on for the time of drain: that long it may take until the
// API server has heard that it is to call another replica.
func NewServer(handler http.Handler, certificates *Certificates, drain time.Duration, log *slog.Logger) (*Server, error) {
	if handler == nil || certificates == nil || log == nil || drain < 0 {
		return nil, errors.New("the server needs a handler, certificates and a logger")
	}
	return &Server{handler: handler, certificates: certificates, drain: drain, log: log}, nil
}

// Serve answers what comes in at l until ctx ends, then for the time of drain, and then until what is at work is done.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.attend(ctx),
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.certificates.GetCertificate},
		ReadHeaderTimeout: unusedTimeout, // for the first review of a connection it begins with the connection
		IdleTimeout:       unusedTimeout,
		WriteTimeout:      answerTimeout,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(l, "", "") }()
	select {
	case err := <-served:
		return fmt.Errorf("serve at %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	s.log.Info("ending: still serving, until the API server calls others", "drain", s.drain)
	select {
	case err := <-served:
		return fmt.Errorf("serve at %s: %w", l.Addr(), err)
	case <-time.After(s.drain):
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := server.Shutdown(limited); err != nil {
		s.log.Warn("admissions were cut off at the end", observe.KeyError, err)
		return server.Close()
	}
	return nil
}

// attend hands reviews to the handler. Once ctx has ended, each answer says that its connection ends with it: who is told
// takes a new one for the next review, to another replica. A connection that is cut off without a word may just be taking up
// a review, which then fails, for the API server sends none twice.
func (s *Server) attend(ctx context.Context) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx.Err() != nil {
			w.Header().Set("Connection", "close")
		}
		// http.Server's own timeout would count from the beginning of the connection, however late its first review comes.
		if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
			s.log.Debug("a review has no time limit", observe.KeyError, err)
		}
		s.handler.ServeHTTP(w, r)
	})
}
