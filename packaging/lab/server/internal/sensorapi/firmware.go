package sensorapi

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/packaging/lab/admin"
)

// firmware sends an archive. Its MAC covers nothing of it.
func (a *API) firmware(w http.ResponseWriter, r *http.Request, body []byte) {
	var archive admin.Firmware
	out := a.call(r, body, func(sensor admin.Sensor, _ []byte) answer {
		var ok bool
		if archive, ok = a.archiveOf(r.URL.Path); !ok {
			return answer{status: http.StatusNotFound, body: codeZero, sensor: &sensor}
		}
		return answer{status: http.StatusOK, sensor: &sensor}
	})
	if out.sensor == nil {
		a.reply(w, r, out)
		return
	}
	sign(w.Header(), a.now(), out.sensor.Secret, r.Method, nil)
	if out.status != http.StatusOK {
		out.sensor = nil
		a.reply(w, r, out)
		return
	}
	a.send(w, r, archive)
}

func (a *API) archiveOf(path string) (admin.Firmware, bool) {
	text := strings.TrimSuffix(strings.TrimPrefix(path, "/api/platforms/firmware/"), "/raw")
	id, err := strconv.Atoi(text)
	if err != nil {
		return admin.Firmware{}, false
	}
	for _, firmware := range a.store.Firmware() {
		if firmware.ID == id {
			return firmware, true
		}
	}
	return admin.Firmware{}, false
}

func (a *API) send(w http.ResponseWriter, r *http.Request, archive admin.Firmware) {
	file, err := os.Open(a.store.FirmwarePath(archive.ID))
	if err != nil {
		a.reply(w, r, failure("firmware file is gone"))
		return
	}
	defer func() {
		if err := file.Close(); err != nil {
			a.log.Warn("firmware not closed", zap.Error(err))
		}
	}()
	h := w.Header()
	h.Set("Expires", "0")
	h.Set("Pragma", "public")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Description", "File Transfer")
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=honeysens-%s-%s.tar.gz", archive.Platform, archive.Revision))
	http.ServeContent(quiet{w}, r, "", time.Time{}, file)
}

// quiet leaves out a header that the real server does not send, although it
// serves ranges.
type quiet struct {
	http.ResponseWriter
}

func (q quiet) WriteHeader(status int) {
	q.Header().Del("Accept-Ranges")
	q.ResponseWriter.WriteHeader(status)
}
