package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
)

// ownerFlags are NFT_TABLE_F_OWNER (Linux 5.12): the table belongs to the
// socket that makes it, and NFT_TABLE_F_PERSIST (Linux 6.9): it outlives that
// socket. The first without the second would take the containment of the
// services away with the helper, so it is both or none.
const ownerFlags = 2 | 4

// claim makes the table, or adopts it, as its owner if the kernel knows owners.
func (t *Table) claim(table *ruleset.Table) error {
	name := table.Name
	err := t.newTable(table, t.flags)
	if errors.Is(err, unix.EOPNOTSUPP) && t.flags != 0 {
		t.log.Info("kernel does not keep tables for their owner")
		t.flags = 0
		err = t.newTable(table, 0)
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("make table %s: another process owns it, or CAP_NET_ADMIN is missing: %w", name, err)
	}
	if err != nil {
		return fmt.Errorf("make table %s: %w", name, err)
	}
	return nil
}

// newTable sends NFT_MSG_NEWTABLE, which the library sends without flags only.
func (t *Table) newTable(table *ruleset.Table, flags uint32) error {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: append([]byte(table.Name), 0)},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, flags)},
	})
	if err != nil {
		return err
	}
	const newTable = netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE)
	batch := []netlink.Message{
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: nfgen(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)},
		{
			Header: netlink.Header{Type: newTable, Flags: netlink.Request | netlink.Acknowledge | netlink.Create},
			Data:   append(nfgen(byte(table.Family), 0), attrs...),
		},
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: nfgen(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)},
	}
	if err := t.raw.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := t.raw.SendMessages(batch); err != nil {
		return err
	}
	_, err = t.raw.Receive()
	return err
}

// nfgen is struct nfgenmsg: family, version 0 and resource id.
func nfgen(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

// flush ends a transaction. After an error it empties the socket, since answers
// that were not waited for would be taken for those of the next transaction.
func (t *Table) flush() error {
	if err := t.raw.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	err := t.writer.Flush()
	if err != nil {
		t.drain()
	}
	return err
}

// drain reads what is left. The kernel queues all answers before the call that
// sent the transaction returns, so nothing comes later.
func (t *Table) drain() {
	if err := t.raw.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		return
	}
	for {
		if _, err := t.raw.Receive(); errors.Is(err, unix.EAGAIN) || isTimeout(err) {
			return
		}
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && timeout.Timeout()
}
