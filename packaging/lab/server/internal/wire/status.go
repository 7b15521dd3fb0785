package wire

import (
	"encoding/json"
	"net/netip"

	"honeysens.org/dockersensor/packaging/lab/admin"
)

// maxInt32 is the highest number of an integer column.
const maxInt32 = 1<<31 - 1

// Poll is a status request.
type Poll struct {
	Status admin.Status
	// Fingerprints that the sensor sent; nil for null and for none.
	ServerFP, EAPOLCAFP, EAPOLClientFP *string
}

// ParsePoll reads and validates the body of a status request. Rules about time
// are the caller's.
func ParsePoll(body []byte) (Poll, error) {
	outer, raw, inner, err := envelope(body, "status")
	if err != nil {
		return Poll{}, err
	}
	fields, ok := inner.(map[string]any)
	if !ok {
		return Poll{}, invalid("status is not an object")
	}
	var poll Poll
	for _, fp := range []struct {
		key string
		to  **string
	}{
		{"srv_crt_fp", &poll.ServerFP}, {"eapol_ca_crt_fp", &poll.EAPOLCAFP}, {"eapol_client_crt_fp", &poll.EAPOLClientFP},
	} {
		if *fp.to, err = outer.optionalText(fp.key); err != nil {
			return Poll{}, err
		}
	}
	if err := readStatus(fields, &poll.Status); err != nil {
		return Poll{}, err
	}
	if poll.Status.ServiceStatus, err = serviceStatus(raw); err != nil {
		return Poll{}, err
	}
	return poll, nil
}

func (o object) optionalText(key string) (*string, error) {
	if o[key] == nil {
		return nil, nil //nolint:nilnil // absent is neither a text nor an error
	}
	text, err := o.text(key)
	return &text, err
}

func readStatus(o object, s *admin.Status) error {
	var status int64
	for _, field := range []struct {
		key string
		to  *int64
	}{
		{"timestamp", &s.Timestamp}, {"status", &status}, {"free_mem", &s.FreeMem},
		{"disk_usage", &s.DiskUsage}, {"disk_total", &s.DiskTotal},
	} {
		var err error
		if *field.to, err = o.integer(field.key); err != nil {
			return err
		}
	}
	s.Status = int(status)
	var err error
	if s.IP, err = o.text("ip"); err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(s.IP); err != nil || addr.Zone() != "" {
		return invalid("ip is no address")
	}
	if s.SWVersion, err = o.text("sw_version"); err != nil {
		return err
	}
	if _, ok := o["service_status"].(map[string]any); !ok {
		return invalid("service_status is not an object")
	}
	return nil
}

// serviceStatus returns that part of a status with its keys in their order.
func serviceStatus(raw []byte) (json.RawMessage, error) {
	var inner struct {
		ServiceStatus json.RawMessage `json:"service_status"`
	}
	if err := json.Unmarshal(raw, &inner); err != nil {
		return nil, invalid("%v", err)
	}
	return Encode(inner.ServiceStatus)
}

// CheckStore tells whether the database takes a status that is valid.
func CheckStore(s admin.Status) error {
	if err := enum("SensorStatus", int64(s.Status), 2); err != nil {
		return err
	}
	for name, value := range map[string]int64{"freeMem": s.FreeMem, "diskUsage": s.DiskUsage, "diskTotal": s.DiskTotal} {
		if value > maxInt32 || value < -maxInt32-1 {
			return &StoreError{Text: "SQLSTATE[22003]: Numeric value out of range: 1264 Out of range value for column '" + name + "' at row 1"}
		}
	}
	if err := column("swVersion", s.SWVersion); err != nil {
		return err
	}
	return column("serviceStatus", string(s.ServiceStatus))
}

// EmptyStatus tells whether no service was reported.
func EmptyStatus(s json.RawMessage) bool {
	return len(s) == 0 || string(s) == "{}"
}
