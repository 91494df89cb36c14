package page

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// NoArguments is the command line of a demo, which takes none. It ends the program, with usage after -h, and with exit code
// 2 after anything else.
func NoArguments(name, usage string) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	err := flags.Parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		os.Exit(0)
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v; \"%[1]s -h\" explains\n", name, err)
		os.Exit(2)
	}
}
