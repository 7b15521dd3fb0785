package nettest

import "testing"

func TestConnectedHostsReachEachOther(t *testing.T) {
	Need(t, "ip", "ping")
	a, b := NewHost(t, "a"), NewHost(t, "b")
	Connect(a, "eth0", []string{"192.0.2.1/24", "2001:db8::1/64"}, b, "eth0", []string{"192.0.2.2/24", "2001:db8::2/64"})
	a.Run("ping", "-c1", "-W2", "192.0.2.2")
	a.Run("ping", "-c1", "-W2", "2001:db8::2")
}
