package ruleset

import "errors"

// Table is the whole table of one sensor.
type Table struct {
	Name string
}

// New translates a wanted state.
func New(cfg Config) (*Table, error) { return nil, errors.ErrUnsupported }

// TableName is the name of a sensor's table: "honeysens-" and the first twelve
// digits of its container id.
func TableName(sensorID string) (string, error) { return "", errors.ErrUnsupported }

// IsTableName tells whether a table is one of a sensor.
func IsTableName(name string) bool { return false }

// Text renders the table in the syntax of nft.
func (t *Table) Text() string { return "" }
