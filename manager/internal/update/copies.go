package update

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// files are those of the operator that an update changes, with copies of them
// as they were when they worked.
type files struct {
	dir     string
	service string
	compose []string
	env     string
}

func newFiles(dir string, d Deployment) files {
	return files{dir: dir, service: d.Service, compose: d.Files, env: filepath.Join(d.Dir, ".env")}
}

// copied are the names of copies, and of those that were being written.
var copied = regexp.MustCompile(`^\.?(env|compose[0-9]+)\.good`)

// all returns the files with their copies.
func (f files) all() map[string]string {
	all := map[string]string{f.env: filepath.Join(f.dir, "env.good")}
	for n, file := range f.compose {
		all[file] = filepath.Join(f.dir, "compose"+strconv.Itoa(n)+".good")
	}
	return all
}

func (f files) keep() error {
	for path, copyPath := range f.all() {
		if err := keep(path, copyPath); err != nil {
			return fmt.Errorf("keep a copy of %s: %w", path, err)
		}
	}
	return nil
}

// change makes them name the new image and the new project. It begins with the
// copies, so that it can be repeated; what is right already is not written.
func (f files) change(r *Record) error {
	if err := f.changeCompose(imageFor + r.Offer.Revision); err != nil {
		return err
	}
	text, err := readFile(f.all()[f.env])
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return replaceChanged(f.env, EditEnv(text, r.To.Project))
}

// changeCompose changes the last file that names an image for the sensor: compose
// lets the later one win.
func (f files) changeCompose(image string) error {
	for n := len(f.compose) - 1; n >= 0; n-- {
		text, err := readFile(f.all()[f.compose[n]])
		if err != nil {
			return err
		}
		edited, err := EditCompose(text, f.service, image)
		if errors.Is(err, errNoValue) && n > 0 {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(f.compose[n]), err)
		}
		return replaceChanged(f.compose[n], edited)
	}
	return errNoValue
}

func replaceChanged(path string, data []byte) error {
	if now, err := readFile(path); err == nil && string(now) == string(data) {
		return nil
	}
	return replaceFile(path, data, fresh)
}

// restore brings them back. Without copies nothing was changed.
func (f files) restore() error {
	for path, copyPath := range f.all() {
		if err := restore(path, copyPath); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("restore %s: %w", path, err)
		}
	}
	return nil
}

func (f files) forget() error {
	for _, copyPath := range f.all() {
		if err := forget(copyPath); err != nil {
			return err
		}
	}
	return nil
}
