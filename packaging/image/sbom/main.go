// Command sbom finishes the bill of materials of the sensor's image: what
// cyclonedx-gomod says of each Go program becomes one CycloneDX document, together
// with the packages of Debian. It also gathers the licences of the Go modules,
// whose texts have to go with them; those of Debian's packages are in
// /usr/share/doc of the image.
//
// The same input makes the same output, byte by byte: no times, no random
// numbers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/urfave/cli/v2"
)

func main() {
	if err := app().RunContext(context.Background(), os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func app() *cli.App {
	return &cli.App{
		Name: "sbom", Usage: "bill of materials and licences of the image", HideHelpCommand: true,
		ExitErrHandler: func(*cli.Context, error) {},
		Commands: []*cli.Command{
			{
				Name: "merge", Usage: "make one document of those of the programs and of the packages", ArgsUsage: "DOCUMENT...",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "revision", Required: true, Usage: "`REVISION` of the image"},
					&cli.StringFlag{Name: "packages", Required: true, Usage: "`FILE` that dpkg keeps its status in"},
					&cli.StringFlag{Name: "out", Required: true, Usage: "write to `FILE`"},
				},
				Action: mergeCommand,
			},
			{
				Name: "licenses", Usage: "gather the licences of the modules in documents; needs the go command", ArgsUsage: "DOCUMENT...",
				Flags:  []cli.Flag{&cli.StringFlag{Name: "out", Required: true, Usage: "write to `FILE`"}},
				Action: licensesCommand,
			},
		},
	}
}

func mergeCommand(c *cli.Context) error {
	boms, err := readAll(c.Args().Slice())
	if err != nil {
		return err
	}
	status, err := os.Open(c.String("packages"))
	if err != nil {
		return fmt.Errorf("read packages: %w", err)
	}
	defer status.Close()
	packages, err := debian(status)
	if err != nil {
		return err
	}
	return write(c.String("out"), func(out io.Writer) error {
		encoder := cdx.NewBOMEncoder(out, cdx.BOMFileFormatJSON)
		encoder.SetPretty(true)
		return encoder.EncodeVersion(merge(c.String("revision"), boms, packages), cdx.SpecVersion1_6)
	})
}

func licensesCommand(c *cli.Context) error {
	boms, err := readAll(c.Args().Slice())
	if err != nil {
		return err
	}
	where, err := findModules(c.Context)
	if err != nil {
		return err
	}
	return write(c.String("out"), func(out io.Writer) error { return licenses(out, merge("", boms, nil), where) })
}

// document is what cyclonedx-gomod says of the program of that name.
type document struct {
	program string
	bom     *cdx.BOM
}

func readAll(paths []string) ([]document, error) {
	if len(paths) == 0 {
		return nil, errors.New("want the documents of the programs")
	}
	var all []document
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read document: %w", err)
		}
		bom := new(cdx.BOM)
		err = errors.Join(cdx.NewBOMDecoder(file, cdx.BOMFileFormatJSON).Decode(bom), file.Close())
		if err != nil {
			return nil, fmt.Errorf("read document %s: %w", path, err)
		}
		if bom.Metadata == nil || bom.Metadata.Component == nil {
			return nil, fmt.Errorf("read document %s: it names no program", path)
		}
		all = append(all, document{program: strings.TrimSuffix(filepath.Base(path), ".json"), bom: bom})
	}
	return all, nil
}

// write writes a file whole or not at all.
func write(path string, do func(io.Writer) error) error {
	file, err := os.Create(path + ".part")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(do(file), file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(path+".part", path)
}
