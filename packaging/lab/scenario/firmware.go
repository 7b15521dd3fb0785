package scenario

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Firmware is a revision of the sensor that is made from the deployed one.
type Firmware struct {
	Revision string
	// Manager is the package of its manager, built with the revision; "" for a
	// manager that is as the Dockerfile leaves it.
	Manager string
	// Alone is the file of a static program that is all of the image, at /program.
	Alone string
	// Dockerfile are lines that change the image further.
	Dockerfile string
	// Files are what its lines may copy.
	Files map[string]string
	// Platform, Version and Tag replace what metadata.xml and the image say.
	Platform, Version, Tag string
	// NoImage leaves the image out.
	NoImage bool
	// Cut drops that many bytes at the end of the archive.
	Cut int64
}

// Build makes the firmware archive, in the lab's directory, and returns its path.
// The engine of the sensor host must have the image of the deployed sensor; it
// does not have the new one afterwards.
func (s *Scenario) Build(ctx context.Context, f Firmware) (string, error) {
	s.say("building firmware " + f.Revision)
	dir := filepath.Join(s.Lab.Dir(), "firmware-"+f.Revision)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build firmware: %w", err)
	}
	defer os.RemoveAll(dir)
	if !f.NoImage {
		if err := s.buildImage(ctx, dir, f); err != nil {
			return "", fmt.Errorf("build firmware: %w", err)
		}
	}
	metadata := fmt.Sprintf("<?xml version=\"1.0\"?>\n<firmware><name>lab</name><platform>%s</platform><version>%s</version>"+
		"<description>lab</description><changelog>none</changelog></firmware>\n", or(f.Platform, "docker_x86"), or(f.Version, f.Revision))
	if err := os.WriteFile(filepath.Join(dir, "metadata.xml"), []byte(metadata), 0o644); err != nil {
		return "", fmt.Errorf("build firmware: %w", err)
	}
	path := filepath.Join(s.Lab.Dir(), "firmware-"+f.Revision+".tar.gz")
	if err := pack(path, dir, f); err != nil {
		return "", fmt.Errorf("build firmware: %w", err)
	}
	return path, nil
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// buildImage writes firmware.img into a directory.
func (s *Scenario) buildImage(ctx context.Context, dir string, f Firmware) error {
	build := filepath.Join(dir, "context")
	if err := os.MkdirAll(build, 0o755); err != nil {
		return err
	}
	lines := "FROM honeysens/sensorx86:" + s.Revision() + "\nCOPY revision /revision\n"
	if f.Alone != "" {
		lines = "FROM scratch\nCOPY program revision /\n"
		program, err := os.ReadFile(f.Alone)
		if err == nil {
			err = os.WriteFile(filepath.Join(build, "program"), program, 0o755)
		}
		if err != nil {
			return err
		}
	}
	if f.Manager != "" {
		lines += "COPY manager /usr/bin/manager\n"
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(build, "manager"),
			"-ldflags", "-s -w -X honeysens.org/dockersensor/shared/version.Revision="+f.Revision, f.Manager)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := printed(cmd); err != nil {
			return err
		}
	}
	for name, text := range f.Files {
		if err := os.WriteFile(filepath.Join(build, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"Dockerfile": lines + f.Dockerfile + "\n", "revision": f.Revision + "\n"} {
		if err := os.WriteFile(filepath.Join(build, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	tag := "honeysens/sensorx86:" + or(f.Tag, f.Revision)
	cmd := s.Lab.Docker(ctx, "build", "--quiet", "--network", "none", "--tag", tag, build)
	cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=0")
	return errors.Join(printed(cmd),
		printed(s.Lab.Docker(ctx, "save", "--output", filepath.Join(dir, "firmware.img"), tag)),
		printed(s.Lab.Docker(ctx, "rmi", tag)))
}

func printed(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// pack writes the archive. It is hardly compressed: nobody keeps it.
func pack(path, dir string, f Firmware) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	packed, err := gzip.NewWriterLevel(file, gzip.BestSpeed)
	if err != nil {
		return err
	}
	out := tar.NewWriter(packed)
	for _, name := range []string{"metadata.xml", "firmware.img"} {
		if err := member(out, dir, name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := errors.Join(out.Close(), packed.Close()); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return file.Truncate(info.Size() - f.Cut)
}

func member(out *tar.Writer, dir, name string) error {
	in, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: 0o644}); err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return err
}
