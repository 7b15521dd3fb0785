// Package checksum switches checksum offload off, so that honeypots which
// verify checksums themselves see right ones.
//
// With the offload on, the kernel hands a packet that was made on the same
// machine to a virtual interface with its checksum not yet computed. It must be
// off at the sender's side as well as at the receiver's.
package checksum

import (
	"fmt"

	"github.com/safchain/ethtool"
)

// feature is the kernel's NETIF_F_HW_CSUM, which veth and bridge have.
const feature = "tx-checksum-ip-generic"

// Off switches the offload off at an interface of the calling thread's network
// namespace. Segmentation offload goes with it.
func Off(iface string) error {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("checksum offload of %s: %w", iface, err)
	}
	defer tool.Close()
	if err := tool.Change(iface, map[string]bool{feature: false}); err != nil {
		return fmt.Errorf("switch checksum offload of %s off: %w", iface, err)
	}
	return nil
}

// IsOff tells whether the offload is off at an interface of the calling
// thread's network namespace.
func IsOff(iface string) (bool, error) {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return false, fmt.Errorf("checksum offload of %s: %w", iface, err)
	}
	defer tool.Close()
	features, err := tool.Features(iface)
	if err != nil {
		return false, fmt.Errorf("read offloads of %s: %w", iface, err)
	}
	return !features[feature], nil
}
