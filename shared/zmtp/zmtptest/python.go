// Package zmtptest runs the library that honeypots use, libzmq through pyzmq,
// against ours. It is used by tests only.
package zmtptest

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// interpreter is the one that Debian's python3-zmq belongs to, whatever else is
// first in the path.
const interpreter = "/usr/bin/python3"

// NeedPython ends the test as skipped where pyzmq is missing, and as failed
// when CI is set.
func NeedPython(t testing.TB) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), interpreter, "-c", "import zmq").CombinedOutput()
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatalf("pyzmq is missing (python3-zmq on Debian): %v: %s", err, out)
	default:
		t.Skip("pyzmq is missing (python3-zmq on Debian)")
	}
}

// Script is a Python program that runs beside a test and talks to it by lines.
type Script struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	stderr strings.Builder
}

// Start runs a program with arguments. It is killed at the end of the test.
func Start(t testing.TB, program string, args ...string) *Script {
	t.Helper()
	NeedPython(t)
	s := &Script{t: t}
	s.cmd = exec.CommandContext(t.Context(), interpreter, append([]string{"-u", "-c", program}, args...)...)
	s.cmd.Stderr = &s.stderr
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatalf("start python: %v", err)
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("start python: %v", err)
	}
	s.in, s.out = stdin, bufio.NewScanner(stdout)
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start python: %v", err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	return s
}

// Line waits for the next line that the program prints.
func (s *Script) Line() string {
	s.t.Helper()
	if !s.out.Scan() {
		_ = s.cmd.Wait()
		s.t.Fatalf("python ended: %s", s.stderr.String())
	}
	return s.out.Text()
}

// Say writes a line to the program's standard input.
func (s *Script) Say(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		s.t.Fatalf("write to python: %v", err)
	}
}
