package api

import (
	"net"
	"sync"
)

// slotConn gives its slot back when it is closed.
type slotConn struct {
	net.Conn
	once    sync.Once
	release func()
}

// Close closes the connection.
func (c *slotConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}

// unwrap returns the connection that the kernel can be asked about.
func unwrap(conn net.Conn) net.Conn {
	if slot, ok := conn.(*slotConn); ok {
		return slot.Conn
	}
	return conn
}
