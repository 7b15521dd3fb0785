package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	args := os.Args[1:]
	if len(args) == 2 && args[0] == "probe" {
		if err := probe(args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	c := parse(args)
	if err := prepare(c); err != nil {
		report(c.log, err)
		os.Exit(1)
	}
	if err := become(args); err != nil {
		report(c.log, err)
		os.Exit(1)
	}
}

// prepare does what has to be done before runc does its part.
func prepare(c command) error {
	switch c.name {
	case "create":
		if err := create(c.bundle, c.id); err != nil {
			return fmt.Errorf("file system of the honeypot: %w", errors.Join(err, release(c.id)))
		}
	case "delete":
		// The container has ended. What cannot be unmounted now goes with the next
		// creation, and must not keep the engine from removing the container.
		if err := release(c.id); err != nil {
			report("", err)
		}
	}
	return nil
}

func become(args []string) error {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return fmt.Errorf("find runc: %w", err)
	}
	if err := unix.Exec(runc, append([]string{"runc"}, args...), os.Environ()); err != nil {
		return fmt.Errorf("start runc: %w", err)
	}
	return nil
}

// report tells the error as runc does: containerd reads it from the file that it
// has named, and hands it on to whoever wanted the container.
func report(log string, err error) {
	fmt.Fprintln(os.Stderr, "runtime:", err)
	if log == "" {
		return
	}
	file, openErr := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if openErr != nil {
		return
	}
	defer file.Close()
	_ = json.NewEncoder(file).Encode(map[string]string{
		"level": "error", "msg": err.Error(), "time": time.Now().Format(time.RFC3339Nano),
	})
}
