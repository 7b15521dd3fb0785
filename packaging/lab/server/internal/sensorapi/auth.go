package sensorapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
)

// maxSkew is the difference between the clocks that is still accepted, in
// seconds.
const maxSkew = 60

// mac is that of a request or an answer. The word stands for the method.
func mac(secret, ts, word string, body []byte) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(ts + " " + word + " "))
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

func word(method string) string {
	if method == http.MethodPost {
		return "create"
	}
	return "get"
}

// authenticate returns the sensor of a request, or the status of the refusal.
func (a *API) authenticate(r *http.Request, body []byte) (admin.Sensor, int) {
	id, ts, sum := r.Header.Get("X-HS-Sensor"), r.Header.Get("X-HS-TS"), r.Header.Get("X-HS-Auth")
	if id == "" || ts == "" || sum == "" || r.Header.Get("X-HS-Type") != "sha256" {
		return admin.Sensor{}, http.StatusForbidden
	}
	number, err := strconv.Atoi(id)
	if err != nil {
		return admin.Sensor{}, http.StatusBadRequest
	}
	sensor, err := a.store.Sensor(number)
	if err != nil {
		return admin.Sensor{}, http.StatusBadRequest
	}
	sent, err := strconv.ParseInt(ts, 10, 64)
	if skew := a.now().Unix() - sent; err != nil || skew > maxSkew || skew < -maxSkew {
		return sensor, http.StatusForbidden
	}
	if !hmac.Equal([]byte(sum), []byte(mac(sensor.Secret, ts, word(r.Method), body))) {
		return sensor, http.StatusForbidden
	}
	return sensor, http.StatusOK
}

// sign puts the MAC of an answer into its headers.
func sign(h http.Header, now time.Time, secret, method string, body []byte) {
	ts := strconv.FormatInt(now.Unix(), 10)
	h.Set("x-hs-auth", mac(secret, ts, word(method), body))
	h.Set("x-hs-type", "sha256")
	h.Set("x-hs-ts", ts)
}
