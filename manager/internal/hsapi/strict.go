package hsapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// maxDepth bounds the nesting of an answer. A real one nests four deep.
const maxDepth = 16

// checkJSON refuses what encoding/json would let pass or put right: text that
// is not UTF-8, deep nesting, keys that appear twice, more than one value.
func checkJSON(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	in := json.NewDecoder(bytes.NewReader(data))
	in.UseNumber()
	if err := checkValue(in, 0); err != nil {
		return err
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the JSON value")
	}
	return nil
}

func checkValue(in *json.Decoder, depth int) error {
	token, err := in.Token()
	if err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	open, nested := token.(json.Delim)
	if !nested {
		return nil
	}
	if depth++; depth > maxDepth {
		return fmt.Errorf("nested more than %d deep", maxDepth)
	}
	seen := map[string]bool{}
	for in.More() {
		if open == '{' {
			if err := checkKey(in, seen); err != nil {
				return err
			}
		}
		if err := checkValue(in, depth); err != nil {
			return err
		}
	}
	if _, err := in.Token(); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	return nil
}

func checkKey(in *json.Decoder, seen map[string]bool) error {
	token, err := in.Token()
	if err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	key, _ := token.(string)
	if seen[key] {
		return fmt.Errorf("key %.60q appears twice", key)
	}
	seen[key] = true
	return nil
}

// object reads a JSON object. The server's language writes an empty one as [].
func object(data json.RawMessage) (map[string]json.RawMessage, error) {
	if bytes.Equal(bytes.TrimSpace(data), []byte("[]")) {
		return map[string]json.RawMessage{}, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil || fields == nil {
		return nil, fmt.Errorf("%s: want an object", snippet(data))
	}
	return fields, nil
}

// maxText bounds a single text; certificates with their chain are the longest.
const maxText = 256 << 10

// scalar reads a string, or a number as it was written; null is nil.
func scalar(data json.RawMessage) (*string, error) {
	trimmed := bytes.TrimSpace(data)
	var text string
	switch {
	case len(trimmed) > maxText:
		return nil, fmt.Errorf("more than %d bytes", maxText)
	case bytes.Equal(trimmed, []byte("null")):
		return nil, nil
	case len(trimmed) > 0 && (trimmed[0] == '-' || trimmed[0] >= '0' && trimmed[0] <= '9'):
		text = string(trimmed)
		return &text, nil
	}
	if err := json.Unmarshal(trimmed, &text); err != nil {
		return nil, fmt.Errorf("%s: want text or a number", snippet(data))
	}
	return &text, nil
}

// scalarOf reads a field; one that is missing or null is "".
func scalarOf(fields map[string]json.RawMessage, key string) (string, error) {
	data, ok := fields[key]
	if !ok {
		return "", nil
	}
	text, err := scalar(data)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	if text == nil {
		return "", nil
	}
	return *text, nil
}

// boolOf reads true, false, or a number for it; what is missing or null is false.
func boolOf(fields map[string]json.RawMessage, key string) (bool, error) {
	data, ok := fields[key]
	if !ok {
		return false, nil
	}
	switch text := string(bytes.Trim(bytes.TrimSpace(data), `"`)); text {
	case "", "null":
		return false, nil
	default:
		value, err := strconv.ParseBool(text)
		if err != nil {
			return false, fmt.Errorf("%s: %s: want true or false", key, snippet(data))
		}
		return value, nil
	}
}
