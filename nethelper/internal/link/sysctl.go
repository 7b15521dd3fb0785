package link

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysctls is resolved by the kernel for the namespace of the calling thread.
const sysctls = "/proc/sys/net"

// sysctlPath: interface names can have dots, so the parts are never joined by
// them.
func sysctlPath(family, iface, key string) string {
	return filepath.Join(sysctls, family, "conf", iface, key)
}

func readSysctl(family, iface, key string) (string, error) {
	raw, err := os.ReadFile(sysctlPath(family, iface, key))
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// writeSysctl leaves a value alone that is right already: some act on every
// write.
func writeSysctl(family, iface, key, value string) error {
	now, err := readSysctl(family, iface, key)
	if err != nil {
		return err
	}
	if now == value {
		return nil
	}
	if err := os.WriteFile(sysctlPath(family, iface, key), []byte(value), 0); err != nil {
		return fmt.Errorf("write sysctl: %w", err)
	}
	return nil
}

func hasSysctl(family, iface, key string) bool {
	_, err := os.Stat(sysctlPath(family, iface, key))
	return err == nil
}

// restoreSysctl is writeSysctl for an interface that may have gone.
func restoreSysctl(family, iface, key, value string) error {
	err := writeSysctl(family, iface, key, value)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// interfacesV6 lists the interfaces that have IPv6, with "default" among them.
func interfacesV6() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(sysctls, "ipv6", "conf"))
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if entry.Name() != "all" {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}
