package nft

import (
	"context"
	"errors"
	"fmt"
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

// answerTimeout is how long the kernel may take to answer. It answers at once,
// or never when the answer was lost.
const answerTimeout = 10 * time.Second

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
	// want is what is in force, or nil.
	want     *ruleset.Table
	heals    uint64
	lastHeal time.Time
}

// Open connects to the kernel. It changes nothing.
func Open(log *zap.Logger, cfg Config) (*Table, error) {
	writer, raw, err := dial(cfg)
	if err != nil {
		return nil, err
	}
	reader, err := Dial(cfg)
	if err != nil {
		return nil, errors.Join(err, writer.CloseLasting())
	}
	return &Table{log: log, cfg: cfg, writer: writer, raw: raw, reader: reader, flags: ownerFlags}, nil
}

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
	t.writer.DelTable(inet(t.want.Name))
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
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	var (
		removed []string
		errs    error
	)
	for _, table := range tables {
		if !ruleset.IsTableName(table.Name) || !match(table.Name) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return removed, errors.Join(errs, err)
		}
		if err := removeForeign(cfg, table.Name); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		removed = append(removed, table.Name)
	}
	return removed, errs
}

// removeForeign uses a connection of its own: an answer that says "not
// permitted" leaves others behind it unread.
func removeForeign(cfg Config, name string) error {
	conn, err := Dial(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseLasting() }()
	conn.DelTable(inet(name))
	err = conn.Flush()
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("remove table %s: a running sensor owns it; stop that sensor first: %w", name, err)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove table %s: %w", name, err)
	}
	return nil
}

func inet(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
}
