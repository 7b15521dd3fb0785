package doctor

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// examineNames resolves the names of server and proxy, where these are names.
func (d *Doctor) examineNames(ctx context.Context) {
	const check = "DNS"
	if d.settings == nil || d.running != nil {
		return // That is told already, or by the running manager.
	}
	hosts := []string{d.settings.Server.Host}
	if d.settings.Proxy != nil {
		// Through a proxy, it is the proxy that looks for the server.
		hosts = []string{d.settings.Proxy.Host}
	}
	hosts = slices.DeleteFunc(hosts, func(host string) bool {
		_, err := netip.ParseAddr(host)
		return err == nil
	})
	if len(hosts) == 0 {
		d.ok(check, "not needed: the way to the server is an address")
		return
	}
	servers := strings.Join(d.nameServers(), ", ")
	if servers == "" {
		servers = "none"
	}
	for _, host := range hosts {
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			d.problem(check, "check the name, and the name servers in /etc/resolv.conf or in the sensor's settings at the server",
				"%.253q cannot be resolved by the name servers (%s): %v", host, servers, err)
			continue
		}
		d.ok(check, "%.253s is %s", host, strings.Join(addresses[:min(len(addresses), maxShown)], ", "))
	}
}

// nameServers are those of resolv.conf(5).
func (d *Doctor) nameServers() []string {
	// What cannot be read names none.
	text, _ := os.ReadFile(d.path("etc/resolv.conf"))
	var servers []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "nameserver" && len(servers) < maxShown {
			servers = append(servers, fields[1])
		}
	}
	return servers
}
