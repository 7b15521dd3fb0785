package app

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mebibyte is the unit in which the server wants memory and disk.
const mebibyte = 1 << 20

// freeMemory returns the memory that programs can still get, in MB
// (MemAvailable of proc_meminfo(5)).
func freeMemory() (int, error) {
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("free memory: %w", err)
	}
	defer file.Close()
	return parseFreeMemory(file)
}

func parseFreeMemory(meminfo io.Reader) (int, error) {
	for scanner := bufio.NewScanner(meminfo); scanner.Scan(); {
		rest, ok := strings.CutPrefix(scanner.Text(), "MemAvailable:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("free memory: %w", err)
		}
		return int(kib / 1024), nil
	}
	return 0, errors.New("free memory: /proc/meminfo has no MemAvailable")
}

// disk returns how much of a directory's file system is used, and its size, in
// MB.
func disk(dir string) (used, total int, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, 0, fmt.Errorf("disk usage of %s: %w", dir, err)
	}
	blocks := float64(fs.Bsize) / mebibyte
	total = int(float64(fs.Blocks) * blocks)
	return total - int(float64(fs.Bfree)*blocks), total, nil
}

// AddressOf returns the address of an interface that others reach: IPv4 before
// IPv6, and link-local ones only when there is nothing else.
func AddressOf(iface string) (netip.Addr, error) {
	link, err := net.InterfaceByName(iface)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("address of %s: %w", iface, err)
	}
	addresses, err := link.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("address of %s: %w", iface, err)
	}
	var found []netip.Addr
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil {
			found = append(found, prefix.Addr())
		}
	}
	best, ok := choose(found)
	if !ok {
		return netip.Addr{}, fmt.Errorf("interface %s has no address", iface)
	}
	return best, nil
}

func choose(addresses []netip.Addr) (netip.Addr, bool) {
	var best netip.Addr
	for _, address := range addresses {
		if !best.IsValid() || rank(address) < rank(best) {
			best = address
		}
	}
	return best.WithZone(""), best.IsValid()
}

func rank(address netip.Addr) int {
	rank := 0
	if address.IsLinkLocalUnicast() {
		rank += 2
	}
	if address.Is6() {
		rank++
	}
	return rank
}

// interfaceNames lists what IFACE could be.
func interfaceNames() []string {
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var names []string
	for _, link := range links {
		if link.Flags&net.FlagLoopback == 0 {
			names = append(names, link.Name)
		}
	}
	return names
}
