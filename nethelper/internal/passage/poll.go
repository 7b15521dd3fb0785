package passage

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/nft"
)

// pollInterval keeps a repair below a second together with the repair itself.
const pollInterval = 400 * time.Millisecond

// Numbers of linux/netfilter_ipv4/ip_tables.h, the same for IPv6.
const (
	optGetInfo    = 64
	optGetEntries = 65
	infoSize      = 84
	infoSizeAt    = 80
	entriesHead   = 40
	tableNameSize = 32
	// maxTable bounds the copy of a table; 20,000 rules are some 5 MB.
	maxTable = 32 << 20
)

// Watch calls changed after changes of the filter tables of iptables-legacy,
// which the kernel tells nobody about, until ctx ends; it returns nil then. On
// a host without those it reads two files of /proc each time; with them it
// compares copies of the tables, and starts no program.
func (p *Passage) Watch(ctx context.Context, changed func(context.Context)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var before, now [2][sha256.Size]byte
	for {
		for i, l := range legacies() {
			sum, err := l.fingerprint(p.where)
			if err != nil {
				p.log.Debug("legacy table cannot be watched", zap.String("program", l.program), zap.Error(err))
				continue
			}
			now[i] = sum
		}
		if now != before {
			before = now
			changed(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// fingerprint is a hash over the filter table without its counters, or zero
// when there is none.
func (l legacy) fingerprint(where nft.Config) ([sha256.Size]byte, error) {
	used, err := l.inUse(where)
	if err != nil || !used {
		return [sha256.Size]byte{}, err
	}
	var table []byte
	err = inNetNS(where, func() (err error) { table, err = l.read(); return err })
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	l.layout.zeroCounters(table)
	return sha256.Sum256(table), nil
}

// read copies the filter table. When it grows between the two calls the second
// fails with EAGAIN, and the next poll will have it.
func (l legacy) read() ([]byte, error) {
	family := unix.AF_INET
	if l.v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	info := make([]byte, infoSize)
	copy(info, "filter")
	if err := getsockopt(fd, l.level, optGetInfo, info); err != nil {
		return nil, fmt.Errorf("read size of table: %w", err)
	}
	size := binary.NativeEndian.Uint32(info[infoSizeAt:])
	if size > maxTable {
		return nil, errors.New("table is too big")
	}
	entries := make([]byte, entriesHead+int(size))
	copy(entries, "filter")
	binary.NativeEndian.PutUint32(entries[tableNameSize:], size)
	if err := getsockopt(fd, l.level, optGetEntries, entries); err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	return entries[entriesHead:], nil
}

// entryLayout is where struct ipt_entry or ip6t_entry has the offset of the next
// entry and the counters, which are the end of it, on 64-bit machines.
type entryLayout struct{ next, counters, size int }

// zeroCounters goes from entry to entry.
func (at entryLayout) zeroCounters(table []byte) {
	for len(table) >= at.size {
		clear(table[at.counters:at.size])
		next := int(binary.NativeEndian.Uint16(table[at.next:]))
		if next < at.size || next > len(table) {
			return
		}
		table = table[next:]
	}
}

func getsockopt(fd, level, option int, value []byte) error {
	length := uint32(len(value)) // #nosec G115 -- bounded by maxTable
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&length)), 0) // #nosec G103 -- getsockopt(2) takes pointers
	if errno != 0 {
		return errno
	}
	return nil
}
