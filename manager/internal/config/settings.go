package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Limits of the poll interval. Whatever a server says is brought between them.
const (
	MinInterval = time.Minute
	MaxInterval = 24 * time.Hour
)

// Secret is text that never shows in logs and errors. Its use is a conversion
// to string, which is easy to look for.
type Secret string

// String hides the text.
func (Secret) String() string { return "[secret]" }

// GoString hides the text.
func (Secret) GoString() string { return "[secret]" }

// LogValue hides the text.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText hides the text: no settings with secrets cross a socket.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Settings is what an archive says, checked.
type Settings struct {
	Server Server
	Sensor Sensor
	// Interface is the one that attackers arrive at, but for its name, which
	// the archive does not know.
	Interface helperapi.Interface
	// Proxy is nil for a direct connection to the server.
	Proxy *Proxy
	// EAPOL is nil when the network wants no 802.1X.
	EAPOL *EAPOL
}

// Server is where the sensor reports to.
type Server struct {
	// Host is the address to connect to, often an IP address.
	Host string
	Port uint16
	// Name is the one in the server's certificate.
	Name string
	// Interval is the time between two polls.
	Interval time.Duration
	// Chain is the server's certificate and what signed it.
	Chain []*x509.Certificate
	// Previous is the chain before the server announced Chain. It is valid
	// until the server was seen with the new certificate.
	Previous []*x509.Certificate
}

// Trust is all that the server's certificate may be verified with.
func (s *Server) Trust() []*x509.Certificate {
	return append(append([]*x509.Certificate(nil), s.Chain...), s.Previous...)
}

// Sensor is who the sensor is.
type Sensor struct {
	// ID is the one at the server: decimal digits.
	ID       string
	Hostname string
	// Secret is the key of every request, as text.
	Secret Secret
	// ServiceNetwork is the one that honeypots get their addresses from.
	ServiceNetwork netip.Prefix
}

// Proxy is an HTTP proxy on the way to the server.
type Proxy struct {
	Host string
	Port uint16
	// User may be empty, or have a domain before a backslash.
	User     string
	Password Secret
}

// group is a part of the settings that is valid, or not, by itself.
type group struct {
	name  string
	parse func(*Archive, *Settings) error
}

var groups = []group{
	{"server", (*Archive).parseServer},
	{"certificate", (*Archive).parseChain},
	{"general", (*Archive).parseSensor},
	{"network", (*Archive).parseNetwork},
	{"mac", (*Archive).parseMAC},
	{"proxy", (*Archive).parseProxy},
	{"eapol", (*Archive).parseEAPOL},
}

// Settings checks the whole archive. The error names every value that is
// wrong, by section and key, and says what to do.
func (a *Archive) Settings() (Settings, error) {
	var s Settings
	var errs []error
	for _, g := range groups {
		errs = append(errs, g.parse(a, &s))
	}
	if err := errors.Join(errs...); err != nil {
		return Settings{}, fmt.Errorf("configuration archive %s: %w; then download the sensor's configuration again", a.path, err)
	}
	return s, nil
}

// remedy ends every error about a value.
const remedy = "correct it in the sensor's settings at the server"

// wrong is the error about a value. Secrets are named, not shown.
func wrong(section, key string, value any, want string) error {
	return fmt.Errorf("%s.%s is %.100q: want %s; %s", section, key, value, want, remedy)
}

// text returns a value, or "" when it is unset or the archive lacks the key.
func (a *Archive) text(section, key string) string {
	if i := a.doc.lookup(section, key); i != nil && i.value != nil {
		return *i.value
	}
	return ""
}

// need returns a value that has to be there.
func (a *Archive) need(section, key string) (string, error) {
	if text := a.text(section, key); text != "" {
		return text, nil
	}
	if a.doc.lookup(section, key) == nil {
		return "", fmt.Errorf("%s.%s is missing: %s", section, key, remedy)
	}
	return "", fmt.Errorf("%s.%s is unset: %s", section, key, remedy)
}

// mode returns a number from 0 to most.
func (a *Archive) mode(section string, most int) (int, error) {
	text, err := a.need(section, "mode")
	if err != nil {
		return 0, err
	}
	mode, err := strconv.Atoi(text)
	if err != nil || mode < 0 || mode > most {
		return 0, wrong(section, "mode", text, fmt.Sprintf("a number from 0 to %d", most))
	}
	return mode, nil
}

func (a *Archive) port(section, key string) (uint16, error) {
	text, err := a.need(section, key)
	if err != nil {
		return 0, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, wrong(section, key, text, "a port from 1 to 65535")
	}
	return uint16(port), nil
}

// hostName is a name of the DNS, as liberal as it is used: with underscores.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?$`)

// host returns a name or an IP address, that one without brackets.
func (a *Archive) host(section, key string) (string, error) {
	text, err := a.need(section, key)
	if err != nil {
		return "", err
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	if addr, err := netip.ParseAddr(bare); err == nil && addr.Zone() == "" {
		return addr.String(), nil
	}
	// A name never ends in a number: that is an address with a mistake in it.
	if last := text[strings.LastIndexByte(text, '.')+1:]; len(text) > 253 || !hostName.MatchString(text) || strings.Trim(last, "0123456789") == "" && last != "" {
		return "", wrong(section, key, text, "a host name or an IP address")
	}
	return text, nil
}

func (a *Archive) parseServer(s *Settings) error {
	var errs [4]error
	s.Server.Host, errs[0] = a.host("server", "host")
	s.Server.Name, errs[1] = a.host("server", "name")
	s.Server.Port, errs[2] = a.port("server", "port_https")
	s.Server.Interval, errs[3] = a.interval()
	return errors.Join(errs[:]...)
}

func (a *Archive) interval() (time.Duration, error) {
	text, err := a.need("server", "interval")
	if err != nil {
		return 0, err
	}
	interval, ok := ParseInterval(text)
	if !ok {
		return 0, wrong("server", "interval", text, "a number of minutes")
	}
	return interval, nil
}

// ParseInterval reads minutes and brings them between MinInterval and
// MaxInterval.
func ParseInterval(text string) (interval time.Duration, ok bool) {
	minutes, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, false
	}
	minutes = min(max(minutes, int64(MinInterval/time.Minute)), int64(MaxInterval/time.Minute))
	return time.Duration(minutes) * time.Minute, true
}

var (
	sensorID = regexp.MustCompile(`^[0-9]{1,18}$`)
	secret   = regexp.MustCompile(`^[!-~]{1,256}$`)
)

func (a *Archive) parseSensor(s *Settings) error {
	var errs [3]error
	if s.Sensor.ID, errs[0] = a.need("general", "sensor_id"); errs[0] == nil && !sensorID.MatchString(s.Sensor.ID) {
		errs[0] = wrong("general", "sensor_id", s.Sensor.ID, "a number")
	}
	s.Sensor.Hostname = a.text("general", "hostname")
	key, err := a.need("general", "secret")
	if errs[1] = err; err == nil && !secret.MatchString(key) {
		errs[1] = wrong("general", "secret", Secret(key), "printable ASCII, at most 256 characters")
	}
	s.Sensor.Secret = Secret(key)
	s.Sensor.ServiceNetwork, errs[2] = a.serviceNetwork()
	return errors.Join(errs[:]...)
}

func (a *Archive) serviceNetwork() (netip.Prefix, error) {
	text, err := a.need("general", "service_network")
	if err != nil {
		return netip.Prefix{}, err
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil || !prefix.Addr().Is4() || !prefix.Addr().IsPrivate() || prefix.Bits() > 29 || prefix.Bits() < 16 {
		return netip.Prefix{}, wrong("general", "service_network", text, "a private IPv4 network from /16 to /29, such as 10.10.10.0/24")
	}
	return prefix.Masked(), nil
}

func (a *Archive) parseProxy(s *Settings) error {
	mode, err := a.mode("proxy", 1)
	if err != nil || mode == 0 {
		return err
	}
	proxy := &Proxy{User: a.text("proxy", "user"), Password: Secret(a.text("proxy", "password"))}
	var hostErr, portErr error
	proxy.Host, hostErr = a.host("proxy", "host")
	proxy.Port, portErr = a.port("proxy", "port")
	if len(proxy.User) > 255 || len(proxy.Password) > 255 {
		err = fmt.Errorf("proxy.user or proxy.password has more than 255 bytes: %s", remedy)
	}
	s.Proxy = proxy
	return errors.Join(hostErr, portErr, err)
}
