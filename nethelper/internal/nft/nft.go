package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
)

// Config says where the table is.
type Config struct {
	// NetNS is a descriptor of the network namespace; 0 means that of the process.
	NetNS int
}

// bufferSize is for netlink sockets. A transaction must fit into the send
// buffer, and its acknowledgements into the receive buffer.
const bufferSize = 8 << 20

// answerTimeout is how long the kernel may take to answer. It answers when the
// transaction is done, or never when the answer was lost. The first one takes
// longest: the kernel has the modules loaded that the rules need, a process each.
const answerTimeout = 40 * time.Second

// Dial returns a lasting connection with buffers that are large enough, for
// one user at a time.
func Dial(cfg Config) (*nftables.Conn, error) {
	conn, _, err := dial(cfg)
	return conn, err
}

// dial returns the netlink socket, too, for what the library cannot say.
func dial(cfg Config) (*nftables.Conn, *netlink.Conn, error) {
	var raw *netlink.Conn
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(cfg.NetNS), nftables.WithSockOptions(func(c *netlink.Conn) error {
		raw = c
		return enlarge(c)
	}))
	if err != nil {
		return nil, nil, fmt.Errorf("open nftables connection: %w", err)
	}
	return conn, raw, nil
}

func enlarge(c *netlink.Conn) error {
	if err := c.SetReadBuffer(bufferSize); err != nil {
		return fmt.Errorf("set receive buffer: %w", err)
	}
	if err := c.SetWriteBuffer(bufferSize); err != nil {
		return fmt.Errorf("set send buffer: %w", err)
	}
	return nil
}

// Table is the table of this sensor in the kernel. Its methods may be called
// from several goroutines.
type Table struct {
	log *zap.Logger
	cfg Config

	// mu is held for a transaction or for a reading: a connection must not be
	// used by two at once, and nothing may be read from half of a change.
	mu     sync.Mutex
	writer *nftables.Conn
	raw    *netlink.Conn
	reader *nftables.Conn
	// flags are those that the kernel accepts for the table.
	flags uint32
	lacks ruleset.Lacks
	// want is what is in force, or nil.
	want     *ruleset.Table
	heals    uint64
	lastHeal time.Time
}

// Open connects to the kernel. It changes nothing.
func Open(log *zap.Logger, cfg Config) (*Table, error) {
	lacks, err := Probe(cfg)
	if err != nil {
		return nil, err
	}
	for _, note := range lacks.Notes() {
		log.Warn("the kernel lacks something", zap.String("what", note))
	}
	writer, raw, err := dial(cfg)
	if err != nil {
		return nil, err
	}
	reader, err := Dial(cfg)
	if err != nil {
		return nil, errors.Join(err, writer.CloseLasting())
	}
	return &Table{log: log, cfg: cfg, writer: writer, raw: raw, reader: reader, flags: ownerFlags, lacks: lacks}, nil
}

// Lacks is what the kernel lacks; tables must do without it.
func (t *Table) Lacks() ruleset.Lacks { return t.lacks }

// Close ends the connections. The table stays in the kernel, for the next
// helper to adopt; redirection ends with the heartbeat.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.reader.CloseLasting(), t.writer.CloseLasting())
}

// Remove takes away the table that Apply has put in force.
func (t *Table) Remove(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.want == nil {
		return nil
	}
	for _, table := range t.want.All() {
		there, err := t.exists(kernelTable(table))
		if err != nil {
			return err
		}
		if there {
			t.writer.DelTable(kernelTable(table))
		}
	}
	if err := t.flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove table %s: %w", t.want.Name, err)
	}
	t.want = nil
	return nil
}

// Cleanup removes the tables of sensors that match accepts and returns their
// names. Where the kernel knows owners, the table of a sensor that is alive is
// spared, and reported as an error.
func Cleanup(ctx context.Context, cfg Config, match func(table string) bool) ([]string, error) {
	conn, err := Dial(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.CloseLasting() }()
	found, err := ours(conn, match)
	if err != nil {
		return nil, err
	}
	var (
		removed []string
		errs    error
	)
	for _, table := range found {
		if err := ctx.Err(); err != nil {
			return removed, errors.Join(errs, err)
		}
		if err := removeForeign(cfg, table); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		if !slices.Contains(removed, table.Name) {
			removed = append(removed, table.Name)
		}
	}
	return removed, errs
}

// ours lists the tables of sensors that match accepts, of both families.
func ours(conn *nftables.Conn, match func(table string) bool) ([]*nftables.Table, error) {
	var found []*nftables.Table
	for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyBridge} {
		tables, err := conn.ListTablesOfFamily(family)
		if err != nil {
			return nil, fmt.Errorf("list tables: %w", err)
		}
		for _, table := range tables {
			if ruleset.IsTableName(table.Name) && match(table.Name) {
				found = append(found, table)
			}
		}
	}
	return found, nil
}

// removeForeign uses a connection of its own: an answer that says "not
// permitted" leaves others behind it unread.
func removeForeign(cfg Config, table *nftables.Table) error {
	name := table.Name
	conn, err := Dial(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseLasting() }()
	conn.DelTable(table)
	err = conn.Flush()
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("remove table %s: a running sensor owns it; stop that sensor first: %w", name, err)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove table %s: %w", name, err)
	}
	return nil
}

// kernelTable is what the library calls a table.
func kernelTable(t *ruleset.Table) *nftables.Table {
	return &nftables.Table{Name: t.Name, Family: t.Family}
}
