package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/manager/internal/hsapi"
)

// diskFloor stays free on the disk of the state: events come first. In bytes.
const diskFloor = 256 << 20

// refusal is an error that is the firmware's or the host's fault: a repetition
// would end the same way.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// download fetches the archive, and goes on where the last try ended.
func (a *Agent) download(ctx context.Context, r *Record) error {
	file, err := os.OpenFile(a.archive(), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("keep the firmware: %w", err)
	}
	size, err := a.fetch(ctx, r, file)
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	var no refusal
	switch {
	case errors.As(err, &no):
		return a.refuse(ctx, r, no.error)
	case errors.Is(err, unix.ENOSPC):
		return a.refuse(ctx, r, fmt.Errorf("no space is left for the firmware: %w", err))
	case err != nil:
		return errors.Join(err, a.anew(err))
	}
	r.Phase, r.Size = Downloaded, size
	return a.journal.Write(r)
}

// anew throws away what was fetched when the server has answered that it does not
// go on from there.
func (a *Agent) anew(err error) error {
	var answer *hsapi.Error
	if !errors.As(err, &answer) || answer.Status == 0 {
		return nil
	}
	return os.Truncate(a.archive(), 0)
}

func (a *Agent) fetch(ctx context.Context, r *Record, file *os.File) (int64, error) {
	offset, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	sink := &sink{ctx: ctx, agent: a, file: file, done: offset, began: time.Now()}
	size, err := a.parts.Server.GetFirmware(ctx, r.Offer.URI, offset, sink)
	if err == nil && sink.done != size {
		err = fmt.Errorf("the firmware has %d bytes, %d were fetched", size, sink.done)
	}
	return size, err
}

// sink writes the archive at the rate that is allowed.
type sink struct {
	ctx   context.Context
	agent *Agent
	file  *os.File
	done  int64
	sent  int64
	began time.Time
}

// Expect refuses what the disk cannot hold: the archive, and its image in the
// host's engine, which has at least its size.
func (s *sink) Expect(size int64) error {
	s.agent.note(func(state *Status) { state.Done, state.Total = s.done, size })
	return enough(s.agent.journal.Dir(), 2*size-s.done)
}

// enough tells whether a directory's disk has room.
func enough(dir string, need int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("space on the disk: %w", err)
	}
	free := int64(fs.Bavail) * fs.Bsize // #nosec G115 -- far below
	if free < need+diskFloor {
		return refusal{fmt.Errorf("the disk has %d MB free, the update needs %d", free>>20, (need+diskFloor)>>20)}
	}
	return nil
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.file.Write(p)
	s.done += int64(n)
	s.sent += int64(n)
	s.agent.note(func(state *Status) { state.Done = s.done })
	if rate := s.agent.cfg.Rate; rate > 0 && err == nil {
		due := s.began.Add(time.Duration(float64(s.sent) / float64(rate) * float64(time.Second)))
		sleep(s.ctx, time.Until(due))
		err = s.ctx.Err()
	}
	return n, err
}

// verify reads the archive.
func (a *Agent) verify(ctx context.Context, r *Record) error {
	key, err := LoadKey(a.cfg.DeployDir)
	if err != nil {
		return err
	}
	file, err := os.Open(a.archive())
	if errors.Is(err, os.ErrNotExist) {
		r.Phase = Offered
		return a.journal.Write(r)
	}
	if err != nil {
		return fmt.Errorf("read the firmware: %w", err)
	}
	defer file.Close()
	found, digest, err := Verify(cancellable{ctx, file}, r.Offer.Revision, key)
	r.Digest, r.Firmware = digest, found
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return a.refuse(ctx, r, fmt.Errorf("the firmware is not taken: %w", err))
	}
	m, err := a.journal.Memory()
	if err != nil {
		return err
	}
	if known := m.digest(digest); known != nil {
		return a.refuse(ctx, r, errors.New(known.Reason))
	}
	a.log.Info("firmware is right", zap.String("revision", r.Offer.Revision), zap.String("sha256", digest),
		zap.Bool("signed", found.Signed), zap.Bool("hand_over", found.Handover))
	r.Phase = Verified
	return a.journal.Write(r)
}

// cancellable ends with its context.
type cancellable struct {
	ctx context.Context
	io.Reader
}

func (c cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

// load gives the image to the host's engine, and hands the update over to the
// conductor.
func (a *Agent) load(ctx context.Context, r *Record) error {
	self, d, err := a.parts.Host.Self(ctx)
	if err != nil {
		return fmt.Errorf("this sensor cannot replace itself: %w", err)
	}
	if err := enough(a.journal.Dir(), r.Firmware.Unpacked); err != nil {
		var no refusal
		if errors.As(err, &no) {
			return a.refuse(ctx, r, no.error)
		}
		return err
	}
	image, err := a.loadWhole(ctx, r)
	if err != nil {
		var no refusal
		if errors.As(err, &no) {
			return a.refuse(ctx, r, no.error)
		}
		return err
	}
	self.Revision = a.cfg.Revision
	r.From, r.Deployment = self, d
	r.To = Sensor{Project: nextProject(self.Project, d.Dir, r), Revision: r.Offer.Revision, Image: image}
	r.Beside = d.HostNetwork && r.Firmware.Handover
	if r.Worked = a.parts.Worked(ctx); ctx.Err() != nil {
		return ctx.Err()
	}
	r.Phase = Loaded
	if err := a.journal.Write(r); err != nil {
		return err
	}
	return a.parts.Host.Spawn(ctx, r)
}

// loadWhole loads the image. Where a power cut may have ended a load before, the
// engine has layers that it takes for whole, with files that are empty. They go
// with the image, and it is loaded anew.
func (a *Agent) loadWhole(ctx context.Context, r *Record) (string, error) {
	image, err := a.loadImage(ctx, r)
	if err != nil || !a.interrupted {
		return image, err
	}
	a.log.Info("the image is loaded anew: the load was interrupted", zap.String("revision", r.Offer.Revision))
	if err := a.parts.Host.RemoveImage(ctx, image); err != nil {
		return "", err
	}
	if image, err = a.loadImage(ctx, r); err == nil {
		a.interrupted = false
	}
	return image, err
}

func (a *Agent) loadImage(ctx context.Context, r *Record) (string, error) {
	file, err := os.Open(a.archive())
	if err != nil {
		return "", fmt.Errorf("read the firmware: %w", err)
	}
	defer file.Close()
	digest := sha256.New()
	id := ""
	in := io.TeeReader(cancellable{ctx, file}, digest)
	err = Image(in, func(content io.Reader) (err error) {
		id, err = a.parts.Host.Load(ctx, imageFor+r.Offer.Revision, r.Firmware.Layers, content)
		return err
	})
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	if err == nil && hex.EncodeToString(digest.Sum(nil)) != r.Digest {
		err = errors.New("the firmware has changed on the disk")
	}
	if err != nil && !errors.Is(err, ErrNoHost) {
		return "", refusal{err}
	}
	return id, err
}

// nextProject derives a name that no other sensor on this host has: it depends
// on the directory.
func nextProject(project, dir string, r *Record) string {
	base := project
	if at := len(project) - 7; at > 0 && project[at] == '-' && isHex(project[at+1:]) {
		base = project[:at]
	}
	hash := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d", project, dir, r.Digest, r.Began.UnixNano()))
	return base[:min(len(base), 100)] + "-" + hex.EncodeToString(hash[:3])
}

func isHex(text string) bool {
	_, err := hex.DecodeString(text)
	return err == nil
}
