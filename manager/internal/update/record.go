package update

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"
)

// Phase is how far an update has come.
type Phase string

// The phases, in their order. Either of the last two ends the update.
const (
	// Offered: the server wants the revision, and it is fetched.
	Offered Phase = "offered"
	// Downloaded: the archive is on the disk, whole.
	Downloaded Phase = "downloaded"
	// Verified: it is what it says.
	Verified Phase = "verified"
	// Loaded: the host's engine has the image. From here on the conductor acts.
	Loaded Phase = "loaded"
	// Started: the new sensor is started and prepares itself.
	Started Phase = "started"
	// Trial: it is the new sensor's turn, until it has proved itself.
	Trial Phase = "trial"
	// Committed: the new sensor stays and the old project goes.
	Committed Phase = "committed"
	// RolledBack: the old sensor stays and the new project goes.
	RolledBack Phase = "rolled back"
)

// Side is one of the two sensors of an update.
type Side string

// The sides.
const (
	Old Side = "old"
	New Side = "new"
)

// Sensor names what one of the two sensors is.
type Sensor struct {
	// Project is its compose project.
	Project  string `json:"project"`
	Revision string `json:"revision"`
	// Image is the engine's id of its image; Container its full container id, "" as
	// long as there is none.
	Image     string `json:"image"`
	Container string `json:"container,omitempty"`
}

// Offer is what the server wants.
type Offer struct {
	Revision string `json:"revision"`
	// URI is for the server's client.
	URI string `json:"uri"`
}

// Limits are times.
type Limits struct {
	// Prepare is for the new sensor to be ready beside the old one, Trial to
	// prove itself.
	Prepare time.Duration `json:"prepare"`
	Trial   time.Duration `json:"trial"`
}

// Worked is what the new sensor has to reach: what worked before.
type Worked struct {
	// Services are the ids of those that ran and listened, Tested those that passed
	// the self-test.
	Services []string `json:"services"`
	Tested   []string `json:"tested,omitempty"`
	// Network tells that the wanted network was in force, Events that the server
	// took them.
	Network bool `json:"network"`
	Events  bool `json:"events"`
}

// Record is all that must not be forgotten of an update.
type Record struct {
	Phase Phase `json:"phase"`
	Offer Offer `json:"offer"`
	// Began is when it was offered.
	Began time.Time `json:"began"`
	// Digest is the SHA-256 of the archive, in hexadecimal digits, and Size its
	// bytes; from Verified on.
	Digest string `json:"digest,omitempty"`
	Size   int64  `json:"size,omitempty"`
	// Firmware is what was found in it.
	Firmware Firmware `json:"firmware,omitzero"`

	From Sensor `json:"from,omitzero"`
	To   Sensor `json:"to,omitzero"`
	// Beside tells that both can run at the same time. Otherwise the old sensor is
	// stopped before the new one starts.
	Beside     bool       `json:"beside,omitempty"`
	Deployment Deployment `json:"deployment,omitzero"`
	Worked     Worked     `json:"worked,omitzero"`
	Limits     Limits     `json:"limits,omitzero"`
	// Deadline ends the phase.
	Deadline time.Time `json:"deadline,omitzero"`
	// Starts counts those of the conductor.
	Starts int `json:"starts,omitempty"`
	// Reason is why it was rolled back.
	Reason string `json:"reason,omitempty"`
	// Lost tells that somebody removed the image before it was started, which says
	// nothing about the firmware.
	Lost bool `json:"lost,omitempty"`
	// Done tells that nothing is left to do for the conductor.
	Done bool `json:"done,omitempty"`
}

// Deployment is how the sensor was deployed, as its container tells.
type Deployment struct {
	// Dir is the deployment directory on the host.
	Dir string `json:"dir"`
	// Files are the compose files, absolute and in it.
	Files []string `json:"files"`
	// Service is the sensor's name in them.
	Service string `json:"service"`
	// Socket is the host's path of the engine's socket.
	Socket string `json:"socket"`
	// Env is the environment of the sensor, for variables that the compose file
	// only passes on.
	Env []string `json:"env"`
	// HostNetwork tells that the sensor shares the host's network.
	HostNetwork bool `json:"host_network"`
}

// Serving says whose turn it is.
func (r *Record) Serving() Side {
	if r != nil && (r.Phase == Trial || r.Phase == Committed) {
		return New
	}
	return Old
}

// Conducted tells whether the conductor has the say.
func (r *Record) Conducted() bool {
	if r == nil || r.Done {
		return false
	}
	switch r.Phase {
	case Loaded, Started, Trial, Committed, RolledBack:
		return true
	case Offered, Downloaded, Verified:
	}
	return false
}

// side returns which sensor a compose project is.
func (r *Record) side(project string) Side {
	if project == r.To.Project {
		return New
	}
	return Old
}

var (
	projectName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,127}$`)
	containerID = regexp.MustCompile(`^[0-9a-f]{64}$`)
	imageID     = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	hexDigest   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	serviceName = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}$`)
	tagName     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// Validate tells whether the record makes sense. A conductor acts as root by what
// is in it.
func (r *Record) Validate() error {
	switch r.Phase {
	case Offered, Downloaded:
		return r.Offer.validate()
	case Verified:
		return errors.Join(r.Offer.validate(), r.validateDigest())
	case Loaded, Started, Trial, Committed, RolledBack:
		return errors.Join(r.Offer.validate(), r.validateDigest(), r.validateSensors(), r.Deployment.validate())
	}
	return fmt.Errorf("unknown phase %.20q", r.Phase)
}

func (o Offer) validate() error {
	if !tagName.MatchString(o.Revision) {
		return fmt.Errorf("revision %.60q: it cannot be the tag of an image", o.Revision)
	}
	return nil
}

func (r *Record) validateDigest() error {
	if !hexDigest.MatchString(r.Digest) {
		return fmt.Errorf("digest %.70q", r.Digest)
	}
	return nil
}

func (r *Record) validateSensors() error {
	for _, s := range []Sensor{r.From, r.To} {
		if !projectName.MatchString(s.Project) {
			return fmt.Errorf("project %.130q", s.Project)
		}
		if !imageID.MatchString(s.Image) {
			return fmt.Errorf("image %.80q", s.Image)
		}
		if s.Container != "" && !containerID.MatchString(s.Container) {
			return fmt.Errorf("container %.80q", s.Container)
		}
	}
	if r.From.Project == r.To.Project {
		return fmt.Errorf("both projects are %q", r.From.Project)
	}
	return nil
}

func (d Deployment) validate() error {
	if !isPath(d.Dir) || !isPath(d.Socket) || !serviceName.MatchString(d.Service) || len(d.Files) == 0 {
		return fmt.Errorf("deployment in %.200q is not described", d.Dir)
	}
	for _, file := range d.Files {
		// The conductor sees no other directory.
		if inside, err := filepath.Rel(d.Dir, file); err != nil || !isPath(file) || !filepath.IsLocal(inside) {
			return fmt.Errorf("compose file %.200q: want it in %.200q", file, d.Dir)
		}
	}
	return nil
}

func isPath(path string) bool { return filepath.IsAbs(path) && filepath.Clean(path) == path }
