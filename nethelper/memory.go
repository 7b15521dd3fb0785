package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/core"
	"honeysens.org/dockersensor/shared/helperapi"
)

// frugal gives memory back after each request: there is one every few seconds,
// and between them the helper needs little of what it needs for one.
type frugal struct {
	*core.Core
	own []pages
}

// Apply is that of the core. It leaves much behind that the heap does not use.
func (f frugal) Apply(ctx context.Context, want helperapi.Network) (helperapi.Observed, error) {
	defer f.giveBack()
	return f.Core.Apply(ctx, want)
}

// Release is that of the core.
func (f frugal) Release(ctx context.Context) (helperapi.Observed, error) {
	defer f.giveBack()
	return f.Core.Release(ctx)
}

// Observe is that of the core.
func (f frugal) Observe(ctx context.Context) (helperapi.Observed, error) {
	defer discard(f.own)
	return f.Core.Observe(ctx)
}

func (f frugal) giveBack() {
	debug.FreeOSMemory()
	discard(f.own)
}

// pages is a part of the address space.
type pages struct{ start, end uintptr }

// discard takes pages of the program's file out of the process. The kernel keeps
// them in its cache as long as it has room, and maps the few again that are used.
func discard(list []pages) {
	for _, p := range list {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, p.start, p.end-p.start, unix.MADV_DONTNEED)
	}
}

// ownPages returns where the program itself is, as far as it is as in its file:
// not what can be written, nor what was written once, such as by a dynamic linker.
// When that cannot be known there is nothing to discard.
func ownPages() []pages {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil
	}
	defer maps.Close()
	var list []pages
	var current pages
	own := false
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		line := lines.Text()
		var next pages
		var rights string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &next.start, &next.end, &rights); n == 3 {
			current, own = next, strings.HasSuffix(line, " "+exe) && !strings.Contains(rights, "w")
			continue
		}
		if kind, size, _ := strings.Cut(line, ":"); own && kind == "Anonymous" && strings.TrimSpace(size) == "0 kB" {
			list = append(list, current)
		}
	}
	return list
}
