package hsapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Headers of requests and answers.
const (
	headerType   = "X-HS-Type"
	headerSensor = "X-HS-Sensor"
	headerTime   = "X-HS-TS"
	headerAuth   = "X-HS-Auth"
	signType     = "sha256"
)

// Words that stand for the HTTP method in what is signed.
const (
	wordPost = "create"
	wordGet  = "get"
)

// maxSkew is the difference of clocks that a server accepts, either way.
const maxSkew = 60 * time.Second

// mac signs "<time> <word> <body>". The key is the secret as text. With an
// empty body the space before it stays.
func mac(secret, stamp, word string, body []byte) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(stamp + " " + word + " "))
	h.Write(body)
	return h.Sum(nil)
}

// sign adds the headers of a request.
func sign(header http.Header, id, secret string, stamp int64, word string, body []byte) {
	text := strconv.FormatInt(stamp, 10)
	header.Set(headerType, signType)
	header.Set(headerSensor, id)
	header.Set(headerTime, text)
	header.Set(headerAuth, hex.EncodeToString(mac(secret, text, word, body)))
}

// verify checks the headers of an answer and returns the server's time.
func verify(header http.Header, secret, word string, body []byte) (stamp int64, ok bool) {
	text := header.Get(headerTime)
	stamp, err := strconv.ParseInt(text, 10, 64)
	if err != nil || stamp < 0 || header.Get(headerType) != signType {
		return 0, false
	}
	got, err := hex.DecodeString(header.Get(headerAuth))
	if err != nil {
		return 0, false
	}
	return stamp, hmac.Equal(got, mac(secret, text, word, body))
}

// clock is what the server's clock says, as far as answers have told. Time
// since the answer is taken from this host's monotonic clock, so that setting
// its wall clock changes nothing.
type clock struct {
	mu sync.Mutex
	// server is its time when the answer arrived, at. It is never ahead: the
	// answer was on its way, and the server counts whole seconds.
	server, at time.Time
	// sent is the time of the newest status that the server took.
	sent int64
}

// known tells whether an answer has told the server's time.
func (c *clock) known() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.at.IsZero()
}

// now estimates the server's clock. Before any answer that is this host's.
func (c *clock) now(local time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.estimate(local)
}

func (c *clock) estimate(local time.Time) time.Time {
	if c.at.IsZero() {
		return local
	}
	return c.server.Add(local.Sub(c.at))
}

// stamp is the time to send in a status, never before the last one: not even
// when the server's clock was set back, since the server goes by the last one.
func (c *clock) stamp(local time.Time) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.estimate(local).Unix(), c.sent)
}

// learn takes over what an answer says.
func (c *clock) learn(server, local time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server, c.at = server, local
}

// took notes the time of a status that the server has stored.
func (c *clock) took(stamp int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = max(c.sent, stamp)
}

// offset is the server's clock minus this host's.
func (c *clock) offset(local time.Time) time.Duration {
	// Without the monotonic part, wall clocks are compared.
	return c.now(local).Round(0).Sub(local.Round(0))
}
