package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrInvalid is a request that fails validation: 400.
var ErrInvalid = errors.New("validation failed")

// StoreError is a request that fails in the database: 500 with a text.
type StoreError struct {
	Text string
}

func (e *StoreError) Error() string { return e.Text }

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// maxColumn is the length of a text column, in characters.
const maxColumn = 255

// column checks a text against the column that it goes to, which knows the basic
// multilingual plane only.
func column(name, text string) error {
	for _, r := range text {
		if r > 0xffff {
			return &StoreError{Text: fmt.Sprintf("SQLSTATE[HY000]: General error: 1366 Incorrect string value for column '%s' at row 1", name)}
		}
	}
	if utf8.RuneCountInString(text) > maxColumn {
		return &StoreError{Text: fmt.Sprintf("SQLSTATE[22001]: String data, right truncated: 1406 Data too long for column '%s' at row 1", name)}
	}
	return nil
}

// enum checks a number that the server turns into one of its constants.
func enum(name string, value int64, highest int64) error {
	if value < 0 || value > highest {
		return &StoreError{Text: fmt.Sprintf(`%d is not a valid backing value for enum HoneySens\app\models\constants\%s`, value, name)}
	}
	return nil
}

// object is a decoded JSON object whose fields are asked for with their types.
type object map[string]any

// decodeJSON decodes strictly one JSON value. Numbers stay text.
func decodeJSON(text []byte) (any, error) {
	if !utf8.Valid(text) || loneSurrogate(text) {
		return nil, invalid("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, invalid("%v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, invalid("trailing data")
	}
	return v, nil
}

// loneSurrogate tells whether a string holds an escape that is half a
// character, which Go's decoder repairs and the server's refuses.
func loneSurrogate(text []byte) bool {
	high := false
	for i := 0; i < len(text); {
		unit, size := escape(text[i:])
		switch {
		case unit >= 0xdc00 && unit < 0xe000:
			if !high {
				return true
			}
			high = false
		case high:
			return true
		default:
			high = unit >= 0xd800 && unit < 0xdc00
		}
		i += size
	}
	return high
}

// escape returns the unit of a \u escape at the start of text, or 0, and how far
// to go.
func escape(text []byte) (unit uint64, size int) {
	switch {
	case text[0] != '\\' || len(text) < 2:
		return 0, 1
	case text[1] != 'u' || len(text) < 6:
		return 0, 2
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return 0, 2
	}
	return unit, 6
}

// envelope takes the field of a request that holds base64 of JSON. raw is that
// JSON, inner what it holds.
func envelope(body []byte, field string) (outer object, raw []byte, inner any, err error) {
	v, err := decodeJSON(body)
	if err != nil {
		return nil, nil, nil, err
	}
	fields, ok := v.(map[string]any)
	if !ok {
		return nil, nil, nil, invalid("not an object")
	}
	text, err := object(fields).text(field)
	if err != nil {
		return nil, nil, nil, err
	}
	if raw, err = base64.StdEncoding.DecodeString(text); err != nil {
		return nil, nil, nil, invalid("%s is not base64", field)
	}
	inner, err = decodeJSON(raw)
	return fields, raw, inner, err
}

func (o object) text(key string) (string, error) {
	text, ok := o[key].(string)
	if !ok {
		return "", invalid("%s is not a string", key)
	}
	return text, nil
}

// integer refuses what is written with a fraction or an exponent, as the server
// does, and what does not fit.
func (o object) integer(key string) (int64, error) {
	number, ok := o[key].(json.Number)
	if !ok || strings.ContainsAny(number.String(), ".eE") {
		return 0, invalid("%s is not an integer", key)
	}
	n, err := number.Int64()
	if err != nil {
		return 0, invalid("%s does not fit", key)
	}
	return n, nil
}

func (o object) list(key string) ([]any, error) {
	list, ok := o[key].([]any)
	if !ok {
		return nil, invalid("%s is not a list", key)
	}
	return list, nil
}
