package spec

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Lifecycle is how a volume's credentials are to live on after its first Mount.
type Lifecycle struct {
	Refresh     time.Duration // how often a secret without a lease is read again; 0 = never
	RenewAt     float64       // the fraction of its life at which a lease is renewed, 0.3 to 0.9
	RevokeGrace time.Duration // how long a replaced session is kept after the new files were delivered
	Frozen      bool          // rotation is off: renew, but never change the files of a running pod
	TokenFile   string        // where the volume's Vault token is written, named like an object; "" = nowhere
}

// defaultLifecycle is that of a class that says nothing of it.
var defaultLifecycle = Lifecycle{Refresh: 5 * time.Minute, RenewAt: 0.67, RevokeGrace: 10 * time.Minute}

// Bounds of a lifecycle. A short refresh costs Vault a request each time, for every pod of the class.
const (
	minRefresh = time.Second
	minRenewAt = 0.3
	maxRenewAt = 0.9
)

// parseLifecycle reads the parameters of the lifecycle. The objects are those of the class, for the token's file must
// not be one of theirs.
func parseLifecycle(attributes map[string]string, objects []Object, f *findings) Lifecycle {
	l := defaultLifecycle
	// with hands a parameter that says something to a reader, whose errors go on from the quoted text.
	with := func(name string, read func(text string) error) {
		text := strings.TrimSpace(attributes[name])
		if text == "" {
			return
		}
		err := checkLine(text)
		if err == nil {
			err = read(text)
		}
		if err != nil {
			f.add("parameter %s %s %v", name, quote(text), err)
		}
	}
	with("refresh", func(text string) (err error) {
		if on, ok := parseSwitch(text); ok && !on {
			l.Refresh = 0
			return nil
		}
		l.Refresh, err = parseDuration(text, ", or off to never read again")
		if err == nil && l.Refresh < minRefresh {
			err = fmt.Errorf("is less than %v: give Vault more time, or write off to never read again", minRefresh)
		}
		return err
	})
	with("renewAt", func(text string) (err error) {
		l.RenewAt, err = strconv.ParseFloat(text, 64)
		if err != nil || !(l.RenewAt >= minRenewAt && l.RenewAt <= maxRenewAt) { // NaN is in no range
			return fmt.Errorf("must be a number from %v to %v: the fraction of a lease's life at which it is renewed",
				minRenewAt, maxRenewAt)
		}
		return nil
	})
	with("revokeGrace", func(text string) (err error) {
		l.RevokeGrace, err = parseDuration(text, "")
		if err == nil && l.RevokeGrace < 0 {
			err = errors.New("is negative: write 0s to revoke at once")
		}
		return err
	})
	with("rotation", func(text string) error {
		on, ok := parseSwitch(text)
		if !ok {
			return errors.New("is neither on nor off: write one of them, in quotes")
		}
		l.Frozen = !on
		return nil
	})
	with("deliverToken", func(text string) error {
		switch on, ok := parseSwitch(text); {
		case ok && on:
			return errors.New("names no file: write the name of the file that the token goes into")
		case ok:
			return nil
		}
		l.TokenFile = text
		return checkTokenFile(text, objects)
	})
	return l
}

// parseSwitch reads "on" and "off" as people write them: YAML 1.1 makes a truth value of an unquoted on, and tools that
// put the quotes afterwards make it "true".
func parseSwitch(text string) (on, ok bool) {
	switch strings.ToLower(text) {
	case "on", "true", "yes":
		return true, true
	case "off", "false", "no":
		return false, true
	}
	return false, false
}

// parseDuration reads a duration. What else may be written goes into the error.
func parseDuration(text, otherwise string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseUint(text, 10, 32); err == nil {
		return 0, fmt.Errorf("has no unit: write %ss or %[1]sm%s", text, otherwise)
	}
	return 0, fmt.Errorf("is not a duration: write it like 90s, 5m or 1h30m%s", otherwise)
}

// checkTokenFile holds the token's file to the rules of an objectName. Its errors follow the quoted text.
func checkTokenFile(name string, objects []Object) error {
	if err := checkName(name); err != nil {
		return err
	}
	for i, o := range objects {
		switch {
		case o.Name == name:
			return fmt.Errorf("is the objectName of objects[%d] already: rename one of them", i)
		case o.Name != "" && strings.HasPrefix(name, o.Name+"/"):
			return fmt.Errorf("needs a directory where objects[%d] %s is a file: rename one of them", i, quote(o.Name))
		case strings.HasPrefix(o.Name, name+"/"):
			return fmt.Errorf("is a file where objects[%d] %s needs a directory: rename one of them", i, quote(o.Name))
		}
	}
	return nil
}
