package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// killed is what ends a write in the middle.
type killed struct{}

// killAt runs a write that ends before its nth step, and tells whether it did.
// The steps that it came to are returned.
func killAt(t *testing.T, n int, path string, data []byte) (steps []string, dead bool) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			if _, dead = r.(killed); !dead {
				panic(r)
			}
		}
	}()
	r := replacement{path: path, step: func(name string) {
		if len(steps) == n {
			panic(killed{})
		}
		steps = append(steps, name)
	}}
	if err := r.write(data); err != nil {
		t.Fatal(err)
	}
	return steps, false
}

func TestReplaceKilledBetweenAnyTwoSteps(t *testing.T) {
	want := []string{"remove what an interrupted write left", "create", "take owner", "write", "sync file", "rename", "sync directory", "end"}
	for n := range len(want) + 1 {
		path := copyFixture(t, "dhcp")
		a, _, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		before := a.Clone()
		if changed, err := a.Update(Changes{Values: []Value{{"server", "interval", ptr("9")}}}); !changed || err != nil {
			t.Fatal(changed, err)
		}
		packed, err := a.Pack()
		if err != nil {
			t.Fatal(err)
		}
		steps, dead := killAt(t, n, path, packed)
		if !slices.Equal(want[:n], steps) || dead != (n < len(want)) {
			t.Fatalf("killed before step %d: dead %v, steps %q", n, dead, steps)
		}
		found, _, err := Open(filepath.Dir(path))
		if err != nil {
			t.Fatalf("killed before step %d: %v", n, err)
		}
		expect := before
		if slices.Contains(steps, "rename") {
			expect = a
		}
		if !found.Same(expect) {
			t.Errorf("killed before step %d: neither the old nor the new archive", n)
		}
		// The next one is not stopped by what is left, and leaves nothing.
		if err := a.Save(); err != nil {
			t.Errorf("killed before step %d: %v", n, err)
		}
		if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
			t.Errorf("killed before step %d: %v is left, %v", n, files, err)
		}
	}
}

func TestReplaceIsWholeAtEveryInstant(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	texts := [][]byte{bytes.Repeat([]byte("a"), 1<<20), bytes.Repeat([]byte("b"), 1<<19)}
	if err := Replace(path, texts[0]); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		var errs []error
		for n := range 50 {
			errs = append(errs, Replace(path, texts[n%2]))
		}
		done <- errors.Join(errs...)
	}()
	for {
		data, err := os.ReadFile(path)
		if err != nil || (!bytes.Equal(data, texts[0]) && !bytes.Equal(data, texts[1])) {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}
