package update

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestFlush(t *testing.T) {
	if err := Flush(); err != nil {
		t.Error(err)
	}
	if err := flush(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
