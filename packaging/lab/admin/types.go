package admin

import (
	"encoding/json"
	"time"

	"honeysens.org/dockersensor/shared/event"
)

// NewSensor is what registers a sensor.
type NewSensor struct {
	Name     string `json:"name"`
	Location string `json:"location,omitempty"`
	// Wanted holds values of the poll answer and of the archive that differ
	// from the defaults, by their names in the poll answer, verbatim.
	Wanted map[string]json.RawMessage `json:"wanted,omitempty"`
}

// Sensor is a registered sensor.
type Sensor struct {
	ID       int    `json:"id"`
	Name     string `json:"name"`
	Location string `json:"location"`
	// Secret is the key of its HMAC, as ASCII text.
	Secret   string                     `json:"secret"`
	Wanted   map[string]json.RawMessage `json:"wanted,omitempty"`
	Services []Assignment               `json:"services,omitempty"`
	// Firmware is the id of the revision that it should have; 0 for none.
	Firmware int `json:"firmware,omitempty"`
	// Status is what it said last, nil before its first poll.
	Status *Status `json:"status,omitempty"`
	// Polls and Refused count its polls that were answered with 200, and its
	// requests of any kind that were not.
	Polls   int `json:"polls"`
	Refused int `json:"refused"`
	// Events counts its events, batches the posts that brought them.
	Events  int `json:"events"`
	Batches int `json:"batches"`
}

// Status is a poll of a sensor.
type Status struct {
	Timestamp int64 `json:"timestamp"`
	// Since is the timestamp of the first poll with the same Status.
	Since         int64           `json:"since"`
	Status        int             `json:"status"`
	IP            string          `json:"ip"`
	FreeMem       int64           `json:"free_mem"`
	DiskUsage     int64           `json:"disk_usage"`
	DiskTotal     int64           `json:"disk_total"`
	SWVersion     string          `json:"sw_version"`
	ServiceStatus json.RawMessage `json:"service_status"`
	// Told is what the newest poll said of the services. The server keeps it as
	// ServiceStatus unless it is empty.
	Told json.RawMessage `json:"told"`
	// Received is by the server's clock.
	Received time.Time `json:"received"`
}

// Assignment is a service that a sensor should run.
type Assignment struct {
	Service int `json:"service"`
	// Revision is "" for the newest one. One that does not exist makes the
	// server announce the service without an image.
	Revision string `json:"revision,omitempty"`
	// PortAssignment replaces that of the service, verbatim.
	PortAssignment *string `json:"portAssignment,omitempty"`
	CatchAll       *bool   `json:"catchAll,omitempty"`
	Raw            *bool   `json:"rawNetworkAccess,omitempty"`
}

// Service is a honeypot that can be assigned.
type Service struct {
	ID         int        `json:"id"`
	Label      string     `json:"label"`
	Repository string     `json:"repository"`
	Revisions  []Revision `json:"revisions"`
}

// Revision is one image of a service, for one architecture.
type Revision struct {
	Revision       string `json:"revision"`
	Architecture   string `json:"architecture"`
	Raw            bool   `json:"rawNetworkAccess"`
	CatchAll       bool   `json:"catchAll"`
	PortAssignment string `json:"portAssignment"`
	// URI is repository:tag, below the server's registry.
	URI string `json:"uri"`
}

// Firmware is an uploaded firmware archive.
type Firmware struct {
	ID       int    `json:"id"`
	Name     string `json:"name"`
	Platform string `json:"platform"`
	Revision string `json:"revision"`
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256"`
}

// Event is a stored event.
type Event struct {
	ID       int64     `json:"id"`
	Sensor   int       `json:"sensor"`
	Received time.Time `json:"received"`
	event.Event
}

// Where a Fault strikes.
const (
	PathPoll     = "poll"
	PathEvents   = "events"
	PathFirmware = "firmware"
	PathRegistry = "registry"
	PathAny      = "any"
)

// Kinds of Fault.
const (
	// FaultUnavailable and FaultError answer 503 and 500.
	FaultUnavailable = "503"
	FaultError       = "500"
	// FaultRejected and FaultForbidden answer 400 and 403.
	FaultRejected  = "400"
	FaultForbidden = "403"
	// FaultDrop closes the connection without an answer, FaultCut in the middle
	// of it.
	FaultDrop = "drop"
	FaultCut  = "cut"
	// FaultAfter does the work and then closes the connection without an answer.
	FaultAfter = "drop-after"
	// FaultWrongMAC and FaultNoMAC spoil a good answer.
	FaultWrongMAC = "wrong-mac"
	FaultNoMAC    = "no-mac"
	// FaultGarbage answers 200 with a page of somebody else, as a proxy does.
	FaultGarbage = "garbage"
	// FaultDelay answers late.
	FaultDelay = "delay"
	// FaultPoison refuses a batch that holds an event with a summary of Text.
	FaultPoison = "poison"
)

// Fault is something that goes wrong on purpose.
type Fault struct {
	Path string `json:"path"`
	Kind string `json:"kind"`
	// Sensor is 0 for every one.
	Sensor int `json:"sensor,omitempty"`
	// Count is how often it happens; 0 until it is cleared.
	Count int `json:"count,omitempty"`
	// DelayMS is for FaultDelay, in milliseconds.
	DelayMS int `json:"delay_ms,omitempty"`
	// Text is for FaultPoison.
	Text string `json:"text,omitempty"`
}

// Certificate is what the server serves and announces.
type Certificate struct {
	Serving   string `json:"serving"`
	Announced string `json:"announced"`
}
