package spool

import (
	"maps"

	"go.etcd.io/bbolt"
)

// shelf counts the records of a bucket, in all and of each origin. Invariants:
//   - an origin is in shares while it has records, and its bytes are theirs;
//   - no record of an origin has a smaller id than its from.
type shelf struct {
	count  int
	bytes  int64
	shares map[string]share
}

// share is what one origin has.
type share struct {
	count int
	bytes int64
	// from is where the search for the oldest record begins. As long as records
	// come with growing ids, all searches of an origin together pass each
	// record once.
	from uint64
}

func (s *shelf) clone() shelf {
	c := *s
	c.shares = maps.Clone(s.shares)
	return c
}

func (s *shelf) add(id uint64, record []byte) {
	if s.shares == nil {
		s.shares = map[string]share{}
	}
	origin := originOf(record)
	own, known := s.shares[origin]
	if !known {
		own.from = id
	}
	// What is set aside keeps its id, and need not be the newest.
	own.from = min(own.from, id)
	own.count++
	own.bytes += int64(len(record))
	s.shares[origin] = own
	s.count++
	s.bytes += int64(len(record))
}

func (s *shelf) remove(record []byte) {
	origin := originOf(record)
	own := s.shares[origin]
	own.count--
	own.bytes -= int64(len(record))
	s.shares[origin] = own
	if own.count <= 0 {
		delete(s.shares, origin)
	}
	s.count--
	s.bytes -= int64(len(record))
}

// largest is the origin that has the most bytes.
func (s *shelf) largest() string {
	name, most := "", int64(-1)
	for origin, own := range s.shares {
		if own.bytes > most || own.bytes == most && origin < name {
			name, most = origin, own.bytes
		}
	}
	return name
}

// oldest finds the first record of an origin.
func (s *shelf) oldest(bucket *bbolt.Bucket, origin string) (id uint64, ok bool) {
	own := s.shares[origin]
	cursor := bucket.Cursor()
	for k, v := cursor.Seek(key(own.from)); k != nil; k, v = cursor.Next() {
		if originOf(v) == origin {
			own.from = idOf(k)
			s.shares[origin] = own
			return own.from, true
		}
	}
	return 0, false
}
