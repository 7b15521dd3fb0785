// Command writer is what the tests run as a honeypot: it writes what its arguments
// say until the kernel refuses, and prints how far it came.
//
//	writer fill DIR | unlinked DIR | inodes DIR | keep FILE | wait
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	signal.Ignore(syscall.SIGXFSZ)
	do := map[string]func(string){"fill": fill, "unlinked": unlinked, "inodes": inodes, "keep": keep}
	for n := 1; n+1 < len(os.Args); n += 2 {
		do[os.Args[n]](os.Args[n+1])
	}
	if len(os.Args)%2 == 0 {
		end := make(chan os.Signal, 1)
		signal.Notify(end, syscall.SIGTERM)
		<-end
	}
}

// enough is what proves that nothing bounds it, in bytes.
const enough = 256 << 20

// fill writes files of 1 MB.
func fill(dir string) {
	var total int
	for n := 0; ; n++ {
		file, err := os.Create(filepath.Join(dir, fmt.Sprint("fill-", n)))
		if err == nil {
			var wrote int
			wrote, err = file.Write(make([]byte, 1<<20))
			total += wrote
			err = first(err, file.Close())
		}
		if err != nil || total > enough {
			tell("fill", total, err)
			return
		}
	}
}

// unlinked writes files that have no name any more.
func unlinked(dir string) {
	var total int
	var open []*os.File
	for {
		file, err := os.CreateTemp(dir, "")
		if err == nil {
			open = append(open, file)
			_ = os.Remove(file.Name())
			var wrote int
			wrote, err = file.Write(make([]byte, 1<<20))
			total += wrote
		}
		if err != nil || total > enough {
			tell("unlinked", total, err)
			for _, file := range open {
				_ = file.Close()
			}
			return
		}
	}
}

// inodes makes empty files.
func inodes(dir string) {
	for n := 0; ; n++ {
		file, err := os.Create(filepath.Join(dir, fmt.Sprint("inode-", n)))
		if err != nil {
			tell("inodes", n, err)
			return
		}
		_ = file.Close()
	}
}

// keep tells what was in the file, and has it hold one letter more.
func keep(path string) {
	text, err := os.ReadFile(path)
	fmt.Printf("keep %q %v\n", text, err)
	_ = os.WriteFile(path, append(text, 'x'), 0o600)
}

func tell(what string, number int, err error) {
	full := pathError(err) == syscall.ENOSPC
	fmt.Println(what, number, full)
}

func pathError(err error) error {
	if path, ok := err.(*os.PathError); ok {
		return path.Err
	}
	return err
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
