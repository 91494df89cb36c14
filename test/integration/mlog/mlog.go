// Package mlog stands in for monis.app/mlog, a module that is not to be had from every module proxy. It has the calls
// that the Secrets Store CSI driver makes, over klog, so that the tests can import the driver's own client code.
package mlog

import (
	"context"
	"os"

	"k8s.io/klog/v2"
)

// Format names a log format.
type Format string

// The log formats that the driver knows.
const (
	FormatText Format = "text"
	FormatJSON Format = "json"
)

// Setup returns the function that flushes the logs.
func Setup() func() { return klog.Flush }

// ValidateAndSetKlogLevelAndFormatGlobally leaves klog's own level and text format as they are.
func ValidateAndSetKlogLevelAndFormatGlobally(context.Context, klog.Level, Format) error { return nil }

// Error logs an error.
func Error(msg string, err error, keysAndValues ...any) { klog.ErrorS(err, msg, keysAndValues...) }

// Fatal logs an error and ends the process.
func Fatal(err error, keysAndValues ...any) {
	klog.ErrorS(err, "fatal", keysAndValues...)
	klog.Flush()
	os.Exit(1)
}
