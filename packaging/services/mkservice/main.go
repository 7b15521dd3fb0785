// Command mkservice makes a service archive from files, without a Docker
// engine: a metadata.xml, whose architecture and revision are replaced, and an
// image of an optional root file system with files on top of it.
//
//	mkservice -metadata metadata.xml -revision 1.0 -arch amd64 \
//	    -file out/bin/recon:/recon -entrypoint /recon -out out/dist/recon-1.0-amd64.tar.gz
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"honeysens.org/dockersensor/packaging/services/archive"
)

// options are those of the command line.
type options struct {
	metadata, revision, arch, out string
	image                         archive.ImageConfig
}

func main() {
	opts, err := parse(os.Args[1:])
	if err == nil {
		err = build(opts)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintf(os.Stderr, "mkservice: %v\n", err)
		os.Exit(1)
	default:
		fmt.Println(opts.out)
	}
}

func parse(args []string) (options, error) {
	var opts options
	flags := flag.NewFlagSet("mkservice", flag.ContinueOnError)
	flags.StringVar(&opts.metadata, "metadata", "", "`FILE` with the metadata of the service")
	flags.StringVar(&opts.revision, "revision", "", "revision of the service; empty: that of the metadata")
	flags.StringVar(&opts.arch, "arch", "amd64", "architecture of the image: amd64, arm64 or armhf")
	flags.StringVar(&opts.out, "out", "", "`FILE` to write")
	flags.StringVar(&opts.image.Rootfs, "rootfs", "", "tar `FILE` with a root file system")
	flags.Func("file", "`FROM:TO` puts a file into the image; may be repeated", func(text string) error {
		from, to, ok := strings.Cut(text, ":")
		if !ok || from == "" || !strings.HasPrefix(to, "/") {
			return errors.New("want FROM:/TO")
		}
		opts.image.Files = append(opts.image.Files, archive.File{From: from, To: to})
		return nil
	})
	flags.Func("entrypoint", "program to start and its arguments, separated by spaces", func(text string) error {
		opts.image.Entrypoint = strings.Fields(text)
		return nil
	})
	flags.Func("env", "`NAME=VALUE` in the environment of the program; may be repeated", func(text string) error {
		opts.image.Env = append(opts.image.Env, text)
		return nil
	})
	flags.BoolFunc("read-only", "the program writes no file: sensors start it with a read-only file system", func(string) error {
		opts.image.Labels = map[string]string{archive.LabelReadOnly: "true"}
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if opts.metadata == "" || opts.out == "" || len(opts.image.Entrypoint) == 0 {
		return options{}, errors.New("-metadata, -entrypoint and -out are needed; -help lists the flags")
	}
	return opts, nil
}

func build(opts options) error {
	text, err := os.ReadFile(opts.metadata)
	if err != nil {
		return err
	}
	m, err := archive.ParseMetadata(text)
	if err != nil {
		return fmt.Errorf("%s: %w", opts.metadata, err)
	}
	m.Architecture = opts.arch
	if opts.revision != "" {
		m.Revision = opts.revision
	}
	opts.image.Architecture = opts.arch
	image, err := archive.NewImage(opts.image)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(opts.out), 0o750); err != nil {
		return err
	}
	// Written beside its place first, so that half an archive never has its name.
	temp, err := os.CreateTemp(filepath.Dir(opts.out), ".mkservice-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	if err := errors.Join(archive.Write(temp, m, image), temp.Chmod(0o644), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), opts.out)
}
