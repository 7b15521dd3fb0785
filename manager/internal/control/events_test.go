package control

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
)

func quarantine() EventList {
	return EventList{
		Counts: EventsState{Waiting: 3, WaitingBytes: 2048, Sent: 9, Quarantined: 2},
		Quarantine: []QuarantinedEvent{{
			ID: 7, Service: "4", Since: time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC), Received: time.Date(2026, 11, 24, 7, 0, 0, 0, time.UTC),
			Reason: "the server refuses the content", Source: "192.0.2.66", Summary: "\x1b[2Jcleared\nforged", Bytes: 300,
		}},
	}
}

func TestEventsCrossTheSocket(t *testing.T) {
	want := quarantine()
	got, err := serve(t, &fixed{events: want}, zap.NewAtomicLevel()).Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestRetryCrossesTheSocket(t *testing.T) {
	sensor := &fixed{}
	client := serve(t, sensor, zap.NewAtomicLevel())
	want := Retry{IDs: []uint64{7, 1<<64 - 1}}
	n, err := client.RetryEvents(t.Context(), want)
	if err != nil || n != 2 {
		t.Errorf("%d events, error %v", n, err)
	}
	if diff := cmp.Diff(want, sensor.retry); diff != "" {
		t.Errorf("retry (-want +got):\n%s", diff)
	}
}

func TestTroubleOfTheSpoolIsTold(t *testing.T) {
	client := serve(t, &fixed{err: errors.New("the disk is full")}, zap.NewAtomicLevel())
	_, listErr := client.Events(t.Context())
	_, retryErr := client.RetryEvents(t.Context(), Retry{All: true})
	for name, err := range map[string]error{"list": listErr, "retry": retryErr} {
		if err == nil || !strings.HasSuffix(err.Error(), "the disk is full") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestServerRefusesRetries(t *testing.T) {
	sensor := &fixed{}
	client := serve(t, sensor, zap.NewAtomicLevel())
	bodies := map[string]string{
		"empty": "", "no choice": "{}", "both": `{"ids":[1],"all":true}`, "negative": `{"ids":[-1]}`, "text": `{"ids":["1"]}`,
		"unknown field": `{"al":true,"ids":[1]}`, "trailing": `{"all":true}{}`, "null": "null",
		"many": `{"ids":[1` + strings.Repeat(",1", MaxListed) + `]}`, "huge": `{"ids":[` + strings.Repeat(" ", maxRetry) + `1]}`,
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			if _, err := client.do(t.Context(), http.MethodPost, pathRetry, []byte(body)); err == nil {
				t.Error("it was accepted")
			}
			if sensor.retry.All || sensor.retry.IDs != nil {
				t.Errorf("the sensor was asked for %+v", sensor.retry)
			}
		})
	}
}

func TestEventsForAPerson(t *testing.T) {
	list := quarantine()
	var out strings.Builder
	if err := list.WriteText(&out, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3 waiting (2 KiB), 9 sent, 2 quarantined", "7   2026-11-24T08:00:00Z  4", "and 1 more", "events retry --all"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") || strings.Contains(out.String(), "\nforged") {
		t.Errorf("an attacker's text reaches the terminal:\n%q", out.String())
	}
}

func TestNoQuarantineForAPerson(t *testing.T) {
	var out strings.Builder
	if err := (&EventList{}).WriteText(&out, time.Now()); err != nil || out.String() != "0 waiting, 0 sent, 0 quarantined, 0 lost\n" {
		t.Errorf("error %v, events:\n%s", err, out.String())
	}
}

func FuzzDecodeRetry(f *testing.F) {
	for _, body := range []string{`{"all":true}`, `{"ids":[1,2]}`, `{"ids":null,"all":false}`, `{"all":true} x`, "null", ""} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		retry, err := decodeRetry(strings.NewReader(body))
		if err == nil && retry.All == (len(retry.IDs) > 0) {
			t.Errorf("%q became %+v", body, retry)
		}
	})
}
