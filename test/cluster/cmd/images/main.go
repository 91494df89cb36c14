// Command images builds the images that the cluster runs, as tars that containerd imports: all of them, or those that
// are named. It says one line of each that it made, and nothing of those that are as they should be.
//
//	images [-bin DIRECTORY] [-out DIRECTORY] [-chart FILE] [NAME...]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var from parts
	flag.StringVar(&from.bin, "bin", "build/bin", "where our binaries are")
	flag.StringVar(&from.chart, "chart", "charts/leasehold/Chart.yaml", "the appVersion in it tags the provider's image")
	out := flag.String("out", "build/images", "where the tars go: NAME.tar")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: images [FLAG...] [NAME...], where a NAME is one of", strings.Join(names(), ", "))
		flag.PrintDefaults()
	}
	flag.Parse()

	wanted := flag.Args()
	for _, name := range wanted {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("no image is called %q: there are %s", name, strings.Join(names(), ", "))
		}
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	for _, r := range recipes {
		if len(wanted) > 0 && !slices.Contains(wanted, r.name) {
			continue
		}
		if err := build(ctx, r, from, filepath.Join(*out, r.name+".tar")); err != nil {
			return err
		}
	}
	return nil
}

// build brings one image up to date, and says so if there was something to do.
func build(ctx context.Context, r recipe, from parts, file string) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	began := time.Now()
	i, err := r.compose(ctx, from)
	if err != nil {
		return fmt.Errorf("image %q: %w", r.name, err)
	}
	written, err := i.Update(file)
	if err != nil || !written {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	fmt.Printf("images: %s (%.1f MiB) in %.1f s\n", i.Reference, float64(info.Size())/(1<<20), time.Since(began).Seconds())
	return nil
}
