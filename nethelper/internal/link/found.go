package link

import (
	"errors"
	"fmt"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
)

// Found is a bridge of a sensor, as its alias tells.
type Found struct {
	Name string
	// Sensor is the beginning of the sensor's container id.
	Sensor string
	Iface  string
}

// Find returns the bridges of all sensors.
func Find() ([]Found, error) {
	links, err := netlinksafe.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var found []Found
	for _, l := range links {
		note, ours := parseRecord(l.Attrs().Alias)
		if ours && l.Type() == "bridge" {
			found = append(found, Found{Name: l.Attrs().Name, Sensor: note.sensor, Iface: note.iface})
		}
	}
	return found, nil
}

// Remove takes a found bridge away with its ports, and brings its interface
// back to what it was before.
func (f Found) Remove() error {
	b := &Bridge{name: f.Name, sensor: f.Sensor, iface: f.Iface}
	return errors.Join(RemovePorts(f.Name), b.Remove())
}

func records() ([]record, error) {
	links, err := netlinksafe.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var all []record
	for _, l := range links {
		if note, ours := parseRecord(l.Attrs().Alias); ours && l.Type() == "bridge" {
			all = append(all, note)
		}
	}
	return all, nil
}
