package hosttest

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/safchain/ethtool"

	"honeysens.org/dockersensor/shared/nettest"
)

// volatile are numbers that change by themselves.
var volatile = regexp.MustCompile(`(valid_lft|preferred_lft|expires|[a-z_]+_timer) +\S+`)

// written are elements of sets that packets write to.
var written = regexp.MustCompile(`(?s)(flags dynamic[^}]*?)\n\t\telements = \{[^}]*\}`)

// Snapshot writes down everything about a host's network that a sensor could
// change: links and their offload settings, addresses, routes, ruleset and sysctls,
// one a line.
func Snapshot(host *nettest.Host) string {
	var out strings.Builder
	for _, command := range [][]string{
		{"ip", "-d", "link"}, {"ip", "addr"}, {"ip", "route", "show", "table", "all"},
		{"ip", "-6", "route", "show", "table", "all"}, {"ip", "rule"}, {"nft", "list", "ruleset"},
	} {
		fmt.Fprintf(&out, "# %s\n%s", strings.Join(command, " "), still(host.Run(command[0], command[1:]...)))
	}
	err := host.Do(func() error {
		if err := offloads(&out); err != nil {
			return err
		}
		for _, dir := range []string{"ipv4", "ipv6"} {
			if err := sysctls(&out, filepath.Join("/proc/sys/net", dir)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		fmt.Fprintf(&out, "offloads and sysctls: %v\n", err)
	}
	return out.String()
}

// still leaves out what changes by itself.
func still(text string) string {
	return written.ReplaceAllString(volatile.ReplaceAllString(text, "$1"), "$1")
}

// offloads are the features of all interfaces, in the calling thread's namespace.
func offloads(out *strings.Builder) error {
	settings, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer settings.Close()
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, link := range links {
		features, err := settings.Features(link.Name)
		if err != nil {
			return fmt.Errorf("offloads of %s: %w", link.Name, err)
		}
		for _, name := range slices.Sorted(maps.Keys(features)) {
			fmt.Fprintf(out, "%s %s=%v\n", link.Name, name, features[name])
		}
	}
	return nil
}

// sysctls stays on the calling thread, which the kernel goes by.
func sysctls(out *strings.Builder, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if entry.IsDir() {
			if err := sysctls(out, path); err != nil {
				return err
			}
			continue
		}
		// Some cannot be read; none of those is written by a sensor.
		if value, err := os.ReadFile(path); err == nil {
			fmt.Fprintf(out, "%s=%s\n", path, strings.TrimSpace(string(value)))
		}
	}
	return nil
}
