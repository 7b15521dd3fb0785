package dockerload

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// answer is an engine that says the same to every load.
type answer string

func (a answer) ImageLoad(context.Context, io.Reader, ...client.ImageLoadOption) (image.LoadResponse, error) {
	return image.LoadResponse{Body: io.NopCloser(strings.NewReader(string(a)))}, nil
}

func TestLoad(t *testing.T) {
	endless := strings.Repeat(`{"stream":"`+strings.Repeat("x", 1000)+`"}`, maxAnswer/1000)
	for said, want := range map[string]string{
		"":                          "",
		`{"stream":"Loaded image"}`: "",
		`{"stream":"a"}{"error":"no space left on device"}`: "no space left on device",
		`{"stream":`: "read the answer: unexpected EOF",
		`gibberish`:  "read the answer: invalid character 'g' looking for beginning of value",
		endless:      "read the answer: unexpected EOF",
	} {
		err := Load(t.Context(), answer(said), strings.NewReader(""))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%.40s: got %q, want %q", said, got, want)
		}
	}
}
