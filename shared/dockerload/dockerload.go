// Package dockerload hands archives of images to a Docker engine: the one inside
// the sensor gets honeypots, the host's gets firmware.
package dockerload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// Engine is what is needed of a Docker engine; *client.Client has it.
type Engine interface {
	ImageLoad(ctx context.Context, input io.Reader, options ...client.ImageLoadOption) (image.LoadResponse, error)
}

// maxAnswer bounds what is read of the engine's answer, in bytes.
const maxAnswer = 4 << 20

// Load gives the engine images as `docker save` writes them, and returns when it
// has them. Their files need not be on the disk then.
func Load(ctx context.Context, engine Engine, archive io.Reader) error {
	resp, err := engine.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return readAnswer(resp.Body)
}

// readAnswer finds the error in the JSON stream that the engine answers with: its
// status is 200 in any case.
func readAnswer(body io.Reader) error {
	decoder := json.NewDecoder(io.LimitReader(body, maxAnswer))
	for {
		var line struct {
			Error string `json:"error"`
		}
		err := decoder.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the answer: %w", err)
		case line.Error != "":
			return errors.New(line.Error)
		}
	}
}
