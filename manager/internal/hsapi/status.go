package hsapi

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"honeysens.org/dockersensor/manager/internal/config"
)

const pollPath = "api/sensors/status"

// State is what the sensor says of itself as a whole.
type State int

// The states of a sensor.
const (
	StateError    State = 0
	StateRunning  State = 1
	StateUpdating State = 2
)

// ServiceState is what the sensor says of a service.
type ServiceState int

// The states of a service.
const (
	ServiceRunning   ServiceState = 0
	ServiceScheduled ServiceState = 1
	ServiceError     ServiceState = 2
)

// Status is what a poll tells the server. Its time is added when it is sent.
type Status struct {
	State State
	// IP is the sensor's address as attackers see it; one that is unset is
	// sent as 0.0.0.0, since the server wants an address.
	IP netip.Addr
	// FreeMemory, DiskUsage and DiskTotal are in MB.
	FreeMemory, DiskUsage, DiskTotal int
	// Version is the sensor's revision.
	Version string
	// Services is by the service's id.
	Services map[string]ServiceState
	// Known are the certificates that the sensor has.
	Known config.Fingerprints
}

// The limits of what a server stores.
const (
	maxVersion       = 255
	maxServiceStatus = 255
)

// wireStatus has all keys that a server wants.
type wireStatus struct {
	Timestamp     int64                   `json:"timestamp"`
	Status        State                   `json:"status"`
	IP            string                  `json:"ip"`
	FreeMem       int32                   `json:"free_mem"`
	DiskUsage     int32                   `json:"disk_usage"`
	DiskTotal     int32                   `json:"disk_total"`
	SWVersion     string                  `json:"sw_version"`
	ServiceStatus map[string]ServiceState `json:"service_status"`
}

// PostStatus polls: it sends the status and returns what the server wants.
// Every error but that of an ended context is an *Error.
func (c *Client) PostStatus(ctx context.Context, s Status) (*Wanted, error) {
	const op = "poll"
	clock := c.clock()
	if !clock.known() {
		if err := c.askTime(ctx, op); err != nil {
			return nil, err
		}
	}
	now := c.cfg.Now()
	stamp := clock.stamp(now)
	body, err := s.encode(stamp)
	if err != nil {
		return nil, fmt.Errorf("%s: encode status: %w", op, err)
	}
	a, err := c.post(ctx, request{op: op, path: pollPath, body: body, stamp: clock.now(now).Unix()})
	if err != nil {
		return nil, c.explainRejected(ctx, err)
	}
	clock.took(stamp)
	wanted, err := decodeWanted(a.body, c.cfg.Arch)
	if err != nil {
		return nil, &Error{Class: ClassAnswer, Op: op, Server: c.Address(), Err: err,
			Problem: "the answer cannot be read", Advice: "look into the server's log"}
	}
	wanted.Changes.Served = a.served
	return wanted, nil
}

// encode makes the body of a poll.
func (s *Status) encode(stamp int64) ([]byte, error) {
	ip := s.IP
	if !ip.IsValid() {
		ip = netip.IPv4Unspecified()
	}
	inner, err := json.Marshal(wireStatus{
		Timestamp: stamp, Status: s.State, IP: ip.Unmap().WithZone("").String(),
		FreeMem: megabytes(s.FreeMemory), DiskUsage: megabytes(s.DiskUsage), DiskTotal: megabytes(s.DiskTotal),
		SWVersion: storable(s.Version, maxVersion), ServiceStatus: fitting(s.Services),
	})
	if err != nil {
		return nil, err
	}
	return envelope("status", inner, map[string]any{
		"srv_crt_fp":          orNull(s.Known.Server),
		"eapol_ca_crt_fp":     orNull(s.Known.EAPOLCA),
		"eapol_client_crt_fp": orNull(s.Known.EAPOLClient),
	})
}

func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// megabytes brings a number into the column of the server's database.
func megabytes(n int) int32 {
	return int32(min(max(n, 0), math.MaxInt32)) // #nosec G115 -- bounded in this line
}

// storable replaces what the server's database cannot store, characters beyond
// the basic multilingual plane, and cuts to a number of characters.
func storable(text string, most int) string {
	runes := []rune(strings.ToValidUTF8(text, "?"))
	for i, r := range runes {
		if r > 0xffff {
			runes[i] = '?'
		}
	}
	return string(runes[:min(len(runes), most)])
}

// fitting drops services until the rest fits into the server's database: what
// runs first, what is broken last. It counts the blanks that some programs
// write into JSON.
func fitting(services map[string]ServiceState) map[string]ServiceState {
	ids := make([]string, 0, len(services))
	for id := range services {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(-cmp.Compare(services[a], services[b]), compareIDs(a, b))
	})
	kept := map[string]ServiceState{}
	length := len("{}")
	for _, id := range ids {
		if length += len(`"": 0, `) + len(id); length > maxServiceStatus {
			break
		}
		kept[id] = services[id]
	}
	return kept
}

// compareIDs orders numbers by their value.
func compareIDs(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}
