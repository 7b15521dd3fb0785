package iface

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// announce tells the neighbours which hardware address an address has now;
// otherwise they find out after half a minute.
func announce(iface string, mac net.HardwareAddr, address netip.Addr) error {
	protocol, message, everybody := unix.ETH_P_ARP, gratuitousARP(mac, address), net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if address.Is6() {
		protocol, message, everybody = unix.ETH_P_IPV6, advertisement(mac, address), net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	}
	link, err := net.InterfaceByName(iface)
	if err != nil {
		return fmt.Errorf("announce %v: %w", address, err)
	}
	conn, err := packet.Listen(link, packet.Datagram, protocol, nil)
	if err != nil {
		return fmt.Errorf("announce %v: %w", address, err)
	}
	defer conn.Close()
	if _, err := conn.WriteTo(message, &packet.Addr{HardwareAddr: everybody}); err != nil {
		return fmt.Errorf("announce %v: %w", address, err)
	}
	return nil
}

// gratuitousARP is a request for one's own address (RFC 5227).
func gratuitousARP(mac net.HardwareAddr, address netip.Addr) []byte {
	own := address.AsSlice()
	// Ethernet, IPv4, lengths of their addresses, a request.
	arp := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	arp = append(append(arp, mac...), own...)
	return append(append(arp, make([]byte, len(mac))...), own...)
}

// advertisement is an unsolicited neighbour advertisement to all nodes (RFC
// 4861, 7.2.6).
func advertisement(mac net.HardwareAddr, address netip.Addr) []byte {
	const length, hopLimit, advertise, override, targetLinkLayer = 32, 255, 136, 0x20, 2
	to := netip.IPv6LinkLocalAllNodes().As16()
	own := address.As16()
	icmp := append([]byte{advertise, 0, 0, 0, override, 0, 0, 0}, own[:]...)
	icmp = append(append(icmp, targetLinkLayer, 1), mac...)
	pseudo := append(append([]byte{}, own[:]...), to[:]...)
	pseudo = append(pseudo, 0, 0, 0, length, 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(icmp[2:], checksum(append(pseudo, icmp...)))
	header := append([]byte{6 << 4, 0, 0, 0, 0, length, unix.IPPROTO_ICMPV6, hopLimit}, own[:]...)
	return append(append(header, to[:]...), icmp...)
}
