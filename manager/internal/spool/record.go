package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"honeysens.org/dockersensor/shared/event"
)

// A stored record is: version, checksum of all that follows, time received in
// nanoseconds, length of the origin, origin, event. Numbers are big endian.
const (
	recordVersion = 1
	checksumAt    = 1
	receivedAt    = 5
	originAt      = 13
	recordHead    = 14
)

// Sizes that are refused, in bytes.
const (
	maxOrigin = math.MaxUint8
	maxEvent  = 1 << 20
)

// ErrInvalid says that a record cannot be kept, whatever the disk says.
var ErrInvalid = errors.New("record cannot be kept")

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func encodeRecord(r event.Record) ([]byte, error) {
	if len(r.Origin) > maxOrigin || len(r.Event) > maxEvent || len(r.Event) == 0 {
		return nil, fmt.Errorf("%w: origin of %d bytes, event of %d bytes", ErrInvalid, len(r.Origin), len(r.Event))
	}
	b := make([]byte, recordHead, recordHead+len(r.Origin)+len(r.Event))
	b[0] = recordVersion
	binary.BigEndian.PutUint64(b[receivedAt:], uint64(r.Received.UnixNano())) // #nosec G115 -- read back the same way
	b[originAt] = byte(len(r.Origin))
	b = append(b, r.Origin...)
	b = append(b, r.Event...)
	binary.BigEndian.PutUint32(b[checksumAt:], checksum(b[receivedAt:]))
	return b, nil
}

// decodeRecord copies, since what bbolt hands out ends with its transaction.
func decodeRecord(id uint64, b []byte) (event.Record, error) {
	if len(b) < recordHead || b[0] != recordVersion || len(b) < recordHead+int(b[originAt]) {
		return event.Record{}, fmt.Errorf("record %d: not in a known form", id)
	}
	if binary.BigEndian.Uint32(b[checksumAt:]) != checksum(b[receivedAt:]) {
		return event.Record{}, fmt.Errorf("record %d: checksum differs", id)
	}
	body := recordHead + int(b[originAt])
	return event.Record{
		ID:       id,
		Origin:   string(b[recordHead:body]),
		Received: receivedTime(b),
		Event:    append([]byte(nil), b[body:]...),
	}, nil
}

// receivedTime is all that is needed of a record that is thrown away.
func receivedTime(b []byte) time.Time {
	if len(b) < recordHead {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(b[receivedAt:]))) // #nosec G115 -- written the same way
}

// originOf is empty as well for what is no record.
func originOf(b []byte) string {
	if len(b) < recordHead || len(b) < recordHead+int(b[originAt]) {
		return ""
	}
	return string(b[recordHead : recordHead+int(b[originAt])])
}

func key(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

func idOf(key []byte) uint64 {
	if len(key) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}
