package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"go.uber.org/zap"
)

// The engine does not wait until the files of a layer are on the disk. After a
// power cut in the middle of a load, or before Flush, it has layers that it takes
// for whole, and whose files are empty; the next load leaves them as they are. So
// each load is noted in the engine before it begins: an image without layers, which
// says in a label what is being loaded. It is removed when the disk has all. What a
// note of an earlier boot tells of is removed with its layers.

// noteLabel has what a note says, as JSON.
const noteLabel = "org.honeysens.sensor.load"

// note is what is known of a load.
type note struct {
	// Boot is the boot id of the machine that began it.
	Boot string `json:"boot"`
	// Tags are the names that the image is to have.
	Tags []string `json:"tags"`
	// Layers are its layers from the bottom.
	Layers []v1.Hash `json:"layers"`
}

// begin notes a load, and returns the name of the note.
func (i *Images) begin(ctx context.Context, tags []string, layers []v1.Hash) (string, error) {
	text, err := json.Marshal(note{Boot: i.boot, Tags: tags, Layers: layers})
	if err != nil {
		return "", fmt.Errorf("note the load: %w", err)
	}
	img, err := mutate.Config(empty.Image, v1.Config{Labels: map[string]string{noteLabel: string(text)}})
	if err != nil {
		return "", fmt.Errorf("note the load: %w", err)
	}
	id, err := img.ConfigName()
	if err != nil {
		return "", fmt.Errorf("note the load: %w", err)
	}
	tag := loads + id.Hex
	if err := i.loadFrom(ctx, img, 0, []string{tag}); err != nil {
		return "", fmt.Errorf("note the load: %w", err)
	}
	return tag, nil
}

// end waits until the disk has what was loaded, and removes the note.
func (i *Images) end(ctx context.Context, tag string) error {
	if i.cfg.Flush != nil {
		if err := i.cfg.Flush(); err != nil {
			return err
		}
	}
	return i.untag(ctx, tag)
}

// settle sees to the loads that an earlier manager did not end. It has to be
// called before anything of the engine's is relied on.
func (i *Images) settle(ctx context.Context) error {
	i.settling.Lock()
	defer i.settling.Unlock()
	if i.settled {
		return nil
	}
	list, err := i.engine.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for _, found := range list {
		for _, tag := range found.RepoTags {
			if !strings.HasPrefix(tag, loads) {
				continue
			}
			if err := i.settleOne(ctx, found, tag); err != nil {
				return fmt.Errorf("load that was interrupted: %w", err)
			}
		}
	}
	i.settled = true
	return nil
}

func (i *Images) settleOne(ctx context.Context, found image.Summary, tag string) error {
	var left note
	// What discard has left says nothing, and has no layers that anybody relies on.
	if err := json.Unmarshal([]byte(found.Labels[noteLabel]), &left); err == nil && left.Boot != i.boot {
		i.log.Warn("the machine went down while an image was loaded: it is loaded anew", zap.Strings("image", left.Tags))
		if err := i.discard(ctx, left); err != nil {
			return err
		}
	}
	return i.end(ctx, tag)
}

// discard removes an image with its layers, even where the engine has only layers
// of it: it is told to make the image of the layers that it has. Either that
// succeeds, and they go with the image; or one is missing, and the engine removes
// those that nothing else needs. Layers of other images stay.
func (i *Images) discard(ctx context.Context, left note) error {
	for _, tag := range left.Tags {
		if err := i.untag(ctx, tag); err != nil {
			return err
		}
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{RootFS: v1.RootFS{Type: "layers", DiffIDs: left.Layers}})
	if err != nil {
		return err
	}
	id, err := img.ConfigName()
	if err != nil {
		return err
	}
	tag := loads + id.Hex
	err = i.send(ctx, func(a archive) error { return a.describe(img, len(left.Layers), []string{tag}) })
	if ctx.Err() != nil || client.IsErrConnectionFailed(err) {
		return errors.Join(err, ctx.Err())
	}
	return i.untag(ctx, tag)
}

// untag takes a name away; the engine deletes an image with its last name, unless
// something uses it.
func (i *Images) untag(ctx context.Context, tag string) error {
	_, err := i.engine.ImageRemove(ctx, tag, image.RemoveOptions{PruneChildren: true})
	switch {
	case cerrdefs.IsConflict(err):
		i.log.Debug("image is still in use", zap.String("image", tag))
	case err != nil && !cerrdefs.IsNotFound(err):
		return fmt.Errorf("remove image %s: %w", tag, err)
	}
	return nil
}

// bootID tells this boot of the machine from all others (random(4)).
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
