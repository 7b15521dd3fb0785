package main

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// TestDiscard: the pages of the program itself leave the process, and come back
// when they are used.
func TestDiscard(t *testing.T) {
	own := ownPages()
	before := programPages(t)
	discard(own)
	if after := programPages(t); after >= before {
		t.Errorf("%d KiB of the program before, %d KiB after", before, after)
	}
}

// programPages is how much of files is in this process, in KiB.
func programPages(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`RssFile:\s+(\d+) kB`).FindSubmatch(status)
	if match == nil {
		t.Fatalf("no RssFile:\n%s", status)
	}
	kib, err := strconv.Atoi(string(match[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib
}
