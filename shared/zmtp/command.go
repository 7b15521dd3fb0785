package zmtp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// maxProperties bounds what a peer may say about itself. libzmq sends two.
const maxProperties = 16

// maxPingContext is the longest context of a PING (RFC 37, "Heartbeats").
const maxPingContext = 16

// splitCommand takes a command apart into its name and its data.
func splitCommand(body []byte) (name string, data []byte, err error) {
	if len(body) == 0 || body[0] == 0 || len(body) < 1+int(body[0]) {
		return "", nil, errors.New("command: name is cut short")
	}
	name, data = string(body[1:1+body[0]]), body[1+body[0]:]
	if !tokenChars(name) {
		return "", nil, errors.New("command: name has characters that are not allowed")
	}
	return name, data, nil
}

// joinCommand is the opposite of splitCommand.
func joinCommand(name string, data []byte) []byte {
	body := append([]byte{byte(len(name))}, name...)
	return append(body, data...)
}

// parseMetadata reads the properties of a READY command. Their names are in
// lower case, since case does not matter in them.
func parseMetadata(data []byte) (map[string]string, error) {
	properties := map[string]string{}
	for len(data) > 0 {
		if len(properties) == maxProperties {
			return nil, fmt.Errorf("metadata: more than %d properties", maxProperties)
		}
		name, rest, err := takeName(data)
		if err != nil {
			return nil, err
		}
		value, rest, err := takeValue(rest)
		if err != nil {
			return nil, err
		}
		if _, twice := properties[name]; twice {
			return nil, errors.New("metadata: a property is given twice")
		}
		properties[name], data = string(value), rest
	}
	return properties, nil
}

func takeName(data []byte) (string, []byte, error) {
	size := int(data[0])
	if size == 0 || len(data) < 1+size {
		return "", nil, errors.New("metadata: name is cut short")
	}
	name := string(data[1 : 1+size])
	if !tokenChars(name) {
		return "", nil, errors.New("metadata: name has characters that are not allowed")
	}
	return strings.ToLower(name), data[1+size:], nil
}

func takeValue(data []byte) (value, rest []byte, err error) {
	if len(data) < 4 {
		return nil, nil, errors.New("metadata: value is cut short")
	}
	size := uint64(binary.BigEndian.Uint32(data))
	data = data[4:]
	if size > uint64(len(data)) {
		return nil, nil, errors.New("metadata: value is cut short")
	}
	return data[:size], data[size:], nil
}

func appendProperty(to []byte, name, value string) []byte {
	to = append(to, byte(len(name)))
	to = append(to, name...)
	to = binary.BigEndian.AppendUint32(to, uint32(len(value))) // #nosec G115 -- own short constants
	return append(to, value...)
}

// tokenChars tells whether a name is made of the characters that RFC 37 allows.
func tokenChars(name string) bool {
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-', c == '_', c == '.', c == '+':
		default:
			return false
		}
	}
	return true
}

// pong answers a PING: two bytes of lifetime, then a context that goes back.
func pong(ping []byte) ([]byte, error) {
	if len(ping) < 2 || len(ping) > 2+maxPingContext {
		return nil, fmt.Errorf("ping: %d bytes of data", len(ping))
	}
	return joinCommand("PONG", ping[2:]), nil
}
