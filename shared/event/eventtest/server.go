// Package eventtest is the part of a HoneySens server 2.9.0 that takes events,
// with the strictness that was measured there. It is used by tests only.
package eventtest

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"unicode/utf16"
	"unicode/utf8"

	"honeysens.org/dockersensor/shared/event"
)

// Refusal is an answer other than 200.
type Refusal struct {
	Status int
	Why    string
}

func (r *Refusal) Error() string { return fmt.Sprintf("status %d: %s", r.Status, r.Why) }

// Rejected tells whether the content was refused.
func (r *Refusal) Rejected() bool { return r.Status == http.StatusBadRequest }

// ServerFault tells whether the server failed.
func (r *Refusal) ServerFault() bool { return r.Status == http.StatusInternalServerError }

func bad(why string) error   { return &Refusal{http.StatusBadRequest, why} }
func fault(why string) error { return &Refusal{http.StatusInternalServerError, why} }

// wire has pointers to tell a missing or null value from a zero.
type wire struct {
	Timestamp *json.Number  `json:"timestamp"`
	Service   *json.Number  `json:"service"`
	Source    *string       `json:"source"`
	Summary   *string       `json:"summary"`
	Details   *[]wireDetail `json:"details"`
	Packets   *[]wirePacket `json:"packets"`
}

type wireDetail struct {
	Timestamp *json.Number `json:"timestamp"`
	Type      *json.Number `json:"type"`
	Data      *string      `json:"data"`
}

type wirePacket struct {
	Timestamp *json.Number      `json:"timestamp"`
	Protocol  *json.Number      `json:"protocol"`
	Port      *json.Number      `json:"port"`
	Payload   *string           `json:"payload"`
	Headers   *[]map[string]any `json:"headers"`
}

// Store checks a JSON list of events as POST api/events gets it, and returns
// them. One bad event refuses all; the error is a *Refusal.
func Store(list []byte) ([]event.Event, error) {
	if base64Size := (len(list) + 2) / 3 * 4; base64Size > 1_000_000 {
		return nil, fault("more than a megabyte")
	}
	var events []wire
	if err := json.Unmarshal(list, &events); err != nil {
		return nil, bad(err.Error())
	}
	if len(events) > 500 {
		return nil, fault("more than 500 events")
	}
	for _, e := range events {
		if err := e.check(); err != nil {
			return nil, err
		}
	}
	var stored []event.Event
	if err := json.Unmarshal(list, &stored); err != nil {
		return nil, bad(err.Error())
	}
	return stored, nil
}

func (e wire) check() error {
	if e.Source == nil || e.Summary == nil || e.Details == nil || e.Packets == nil {
		return bad("a key is missing")
	}
	if err := enum("service", e.Service, 2); err != nil {
		return err
	}
	if err := timestamp(e.Timestamp); err != nil {
		return err
	}
	if err := column("source", *e.Source); err != nil {
		return err
	}
	if err := column("summary", *e.Summary); err != nil {
		return err
	}
	for _, d := range *e.Details {
		if err := d.check(); err != nil {
			return err
		}
	}
	for _, p := range *e.Packets {
		if err := p.check(); err != nil {
			return err
		}
	}
	return nil
}

func (d wireDetail) check() error {
	if d.Data == nil {
		return bad("data is missing")
	}
	if err := timestamp(d.Timestamp); err != nil {
		return err
	}
	if err := enum("type", d.Type, 1); err != nil {
		return err
	}
	data := *d.Data
	if len(data) > 255 {
		data = data[:255]
	}
	if !utf8.ValidString(data) {
		return fault("data is cut inside a character")
	}
	return characters("data", data)
}

func (p wirePacket) check() error {
	if p.Headers == nil {
		return bad("headers are missing")
	}
	if err := timestamp(p.Timestamp); err != nil {
		return err
	}
	if err := enum("protocol", p.Protocol, 2); err != nil {
		return err
	}
	port, err := integer("port", p.Port)
	if err != nil {
		return err
	}
	if port < 0 || port > math.MaxUint16 {
		return bad("port out of range")
	}
	if p.Payload != nil {
		if err := characters("payload", *p.Payload); err != nil {
			return err
		}
	}
	headers, err := json.Marshal(*p.Headers)
	if err != nil || phpSize(headers) > 255 {
		return fault("headers are too long")
	}
	return characters("headers", string(headers))
}

func integer(name string, value *json.Number) (int64, error) {
	if value == nil {
		return 0, bad(name + " is missing")
	}
	n, err := value.Int64()
	if err != nil {
		return 0, bad(name + " is no integer")
	}
	return n, nil
}

func timestamp(value *json.Number) error {
	n, err := integer("timestamp", value)
	if err != nil {
		return err
	}
	// What a date in the database can be.
	if n < 0 || n > 253402300799 {
		return fault("timestamp out of range")
	}
	return nil
}

func enum(name string, value *json.Number, most int64) error {
	n, err := integer(name, value)
	if err != nil {
		return err
	}
	if n < 0 || n > most {
		return fault(name + " is not a valid backing value")
	}
	return nil
}

func column(name, value string) error {
	if utf8.RuneCountInString(value) > 255 {
		return bad(name + " is too long")
	}
	return characters(name, value)
}

func characters(name, value string) error {
	for _, r := range value {
		if r > 0xFFFF {
			return fault(name + " has a character that cannot be stored")
		}
	}
	return nil
}

// phpSize is the size of JSON as PHP writes it by default.
func phpSize(encoded []byte) int {
	var value any
	if json.Unmarshal(encoded, &value) != nil {
		return math.MaxInt
	}
	size := 0
	for _, r := range string(encoded) {
		switch {
		case r == '/':
			size += 2
		case r >= utf8.RuneSelf:
			size += 6 * max(1, utf16.RuneLen(r))
		default:
			size++
		}
	}
	return size
}
