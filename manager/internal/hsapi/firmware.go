package hsapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// MaxFirmware is the largest firmware archive that is fetched, in bytes.
const MaxFirmware = 4 << 30

// firmwareURI is the only place that firmware is fetched from.
var firmwareURI = regexp.MustCompile(`^api/platforms/firmware/[0-9]{1,18}/raw$`)

// Expecter is a writer that wants to know the size of the whole archive before
// anything is written. Its error ends the download.
type Expecter interface {
	Expect(size int64) error
}

// GetFirmware writes the firmware archive to w, from the offset on, and returns
// the size of the whole archive. The URI is that of a Firmware. What was
// written before an error is right and can be resumed from; the size is 0 as
// long as the server has not told it. The server signs no byte of the archive:
// TLS protects them.
func (c *Client) GetFirmware(ctx context.Context, uri string, offset int64, w io.Writer) (size int64, err error) {
	const op = "fetch firmware"
	if !firmwareURI.MatchString(uri) || offset < 0 {
		return 0, fmt.Errorf("%s: %.100q from %d: not the address of a firmware", op, uri, offset)
	}
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(c.cfg.Stall, func() { cancel(errStalled) })
	defer watch.Stop()

	ep := c.ep.Load()
	r := request{op: op, path: uri, stamp: ep.clock.now(c.cfg.Now()).Unix(), header: http.Header{"Accept-Encoding": {"identity"}}}
	if offset > 0 {
		r.header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	response, err := c.send(running, ep, r)
	if err != nil {
		return 0, c.unanswered(ctx, ep, op, orStalled(running, err))
	}
	defer response.Body.Close()
	if err := c.judgeFirmware(ep, r, response); err != nil {
		return 0, err
	}
	size, skip, err := extent(response, offset)
	if err != nil {
		return 0, &Error{Class: ClassAnswer, Op: op, Server: ep.address, Status: response.StatusCode, Problem: err.Error(), Advice: "look into the server's log"}
	}
	if e, ok := w.(Expecter); ok {
		if err := e.Expect(size); err != nil {
			return size, fmt.Errorf("%s: %w", op, err)
		}
	}
	body := &watched{reader: response.Body, watch: watch, stall: c.cfg.Stall}
	if err := copyFrom(w, body, skip, size-offset); err != nil {
		var write *writeError
		if errors.As(err, &write) {
			return size, fmt.Errorf("%s: %w", op, write.err)
		}
		return size, c.unanswered(ctx, ep, op, orStalled(running, err))
	}
	return size, nil
}

// judgeFirmware checks the answer's headers. Their MAC covers an empty body, of
// errors too, of which a little is read to be shown.
func (c *Client) judgeFirmware(ep *endpoint, r request, response *http.Response) error {
	var body []byte
	if refused(response.StatusCode, response.Header, nil) != nil || response.Header.Get(headerAuth) == "" {
		// What cannot be read is not shown; the status tells enough.
		body, _ = io.ReadAll(io.LimitReader(response.Body, 1<<10))
	}
	return c.judge(ep, r, response, nil, body)
}

// extent returns the size of the whole archive, and how much of the answer
// comes before the offset: all of it when the server does not know ranges.
func extent(response *http.Response, offset int64) (size, skip int64, err error) {
	if response.StatusCode == http.StatusOK {
		size, skip = response.ContentLength, offset
	} else if size, err = rangeSize(response.Header.Get("Content-Range"), offset); err != nil {
		return 0, 0, err
	}
	if size <= 0 || size > MaxFirmware {
		return 0, 0, fmt.Errorf("the archive has %d bytes: want 1 to %d", size, int64(MaxFirmware))
	}
	if size < offset {
		return 0, 0, fmt.Errorf("the archive has %d bytes, fewer than were fetched before", size)
	}
	return size, skip, nil
}

// rangeSize reads the size from a header such as "bytes 5-99/100", which has to
// begin at the offset and to reach to the end.
func rangeSize(text string, offset int64) (int64, error) {
	wrong := fmt.Errorf("the part from %d on was asked for, and %.60q came", offset, text)
	span, total, ok := strings.Cut(strings.TrimPrefix(text, "bytes "), "/")
	first, last, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 {
		return 0, wrong
	}
	size, err := strconv.ParseInt(total, 10, 64)
	from, err2 := strconv.ParseInt(first, 10, 64)
	to, err3 := strconv.ParseInt(last, 10, 64)
	if errors.Join(err, err2, err3) != nil || from != offset || to != size-1 {
		return 0, wrong
	}
	return size, nil
}

// orStalled returns the reason when a stalled download was ended for it.
func orStalled(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return cause
	}
	return err
}

// watched puts off the end of the download with all that arrives.
type watched struct {
	reader io.Reader
	watch  *time.Timer
	stall  time.Duration
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.reader.Read(p)
	if n > 0 {
		w.watch.Reset(w.stall)
	}
	return n, err
}

// writeError is one of the caller's writer.
type writeError struct{ err error }

func (w *writeError) Error() string { return w.err.Error() }

// guarded tells errors of writing from those of reading.
type guarded struct{ io.Writer }

func (g guarded) Write(p []byte) (int, error) {
	n, err := g.Writer.Write(p)
	if err != nil {
		return n, &writeError{err}
	}
	return n, nil
}

// copyFrom copies n bytes after those to skip.
func copyFrom(w io.Writer, r io.Reader, skip, n int64) error {
	if _, err := io.CopyN(io.Discard, r, skip); err != nil {
		return err
	}
	_, err := io.CopyN(guarded{w}, r, n)
	return err
}
