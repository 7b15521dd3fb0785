package iface

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Config is what a Keeper works with. Times have defaults when they are 0.
type Config struct {
	// SensorID is the container id of the sensor.
	SensorID string
	// Iface is the only interface that is touched.
	Iface string
	// Dir is on a tmpfs; secrets of 802.1X are below it while they are needed.
	Dir string
	// ResolvConf is the file that gets name servers, or "" for none.
	ResolvConf string
	// Supplicant is the program wpa_supplicant.
	Supplicant string
	// Patience is how long an interface must be without an IPv4 address before
	// DHCP begins: a client of the host may be at work at the same time.
	Patience time.Duration
	// Answer is how long the first question of an exchange waits.
	Answer time.Duration
	// Retry is the first pause after an exchange without success.
	Retry time.Duration
	// Look is how often the interface is looked at.
	Look time.Duration
}

func (c Config) withDefaults() Config {
	fill := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	fill(&c.Patience, 10*time.Second)
	fill(&c.Answer, 2*time.Second)
	fill(&c.Retry, 5*time.Second)
	fill(&c.Look, 2*time.Second)
	if c.Supplicant == "" {
		c.Supplicant = "wpa_supplicant"
	}
	return c
}

// Keeper keeps one interface as it is wanted.
type Keeper struct {
	cfg  Config
	log  *zap.Logger
	wake chan struct{}

	mu       sync.Mutex
	wish     *helperapi.Interface
	services []netip.Prefix
	// generation counts wishes: what works for an older one changes nothing any
	// more, even before it has ended.
	generation uint64
	// taken is the sensor that has the interface instead, or "".
	taken string
	// kept says that the host itself has what is wanted.
	kept        string
	dhcp, eapol report
	lease       *lease
	complaint   string
}

// report is what a part has to say.
type report struct{ problem, note string }

// errStale: the wish has changed since.
var errStale = errors.New("another wish is in force")

// New returns a Keeper that has nothing to keep yet.
func New(cfg Config, log *zap.Logger) *Keeper {
	return &Keeper{cfg: cfg.withDefaults(), log: log, wake: make(chan struct{}, 1)}
}

// Ensure puts a wish in force. Hardware address and static address are there
// when it returns; DHCP and 802.1X go on in Run. services are the networks that
// the interface's must not overlap. A missing interface is an error of
// KindConflict.
func (k *Keeper) Ensure(want helperapi.Interface, services []netip.Prefix) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.services = services
	same := k.wish != nil && reflect.DeepEqual(*k.wish, want)
	if err := k.settle(want, !same); err != nil {
		return err
	}
	if same {
		return nil
	}
	k.wish, k.dhcp, k.eapol = &want, report{}, report{}
	k.generation++
	k.log.Info("interface wanted", zap.String("interface", want.Name), zap.String("mode", string(want.Mode)),
		zap.String("mac", want.MAC), zap.Stringer("eapol", want.EAPOL))
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return nil
}

// Run keeps the wish in force until ctx ends. What was changed stays then, for
// the next helper or for Remove.
func (k *Keeper) Run(ctx context.Context) error {
	looks := time.NewTicker(k.cfg.Look)
	defer looks.Stop()
	at := work{stop: func() {}}
	defer func() { at.stop() }()
	for ctx.Err() == nil {
		at = k.attend(ctx, at)
		select {
		case <-ctx.Done():
		case <-k.wake:
		case <-looks.C:
		}
	}
	return nil
}

// work is what runs for one generation.
type work struct {
	generation uint64
	taken      bool
	stop       func()
}

// attend heals what is static, and lets that work which the wish needs.
func (k *Keeper) attend(ctx context.Context, now work) work {
	k.mu.Lock()
	k.heal()
	next := work{generation: k.generation, taken: k.taken != ""}
	wish := k.wish
	k.mu.Unlock()
	if next.generation == now.generation && next.taken == now.taken {
		return now
	}
	now.stop()
	next.stop = func() {}
	if wish != nil && !next.taken {
		next.stop = k.start(ctx, next.generation, *wish)
	}
	return next
}

// start returns how to stop what it started, and wait for its end.
func (k *Keeper) start(ctx context.Context, generation uint64, wish helperapi.Interface) func() {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	again := make(chan struct{}, 1)
	if wish.EAPOL != nil {
		s := &supplicant{
			program: k.cfg.Supplicant, iface: k.cfg.Iface, dir: filepath.Join(k.cfg.Dir, "802.1x"), want: wish.EAPOL, log: k.log,
			says: func(problem, note string) { k.say(generation, &k.eapol, report{problem, note}) },
			opened: func() {
				select {
				case again <- struct{}{}:
				default:
				}
			},
		}
		running.Go(func() { s.run(ctx) })
	}
	if wish.Mode == helperapi.ModeDHCP {
		d := &dhcp{keeper: k, generation: generation, hostname: wish.Hostname, again: again}
		running.Go(func() { d.run(ctx) })
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// heal is settle for what is in force already.
func (k *Keeper) heal() {
	if k.wish == nil {
		return
	}
	err := k.settle(*k.wish, false)
	if err == nil {
		k.complaint = ""
		return
	}
	if text := err.Error(); text != k.complaint {
		k.complaint = text
		k.log.Error("interface is not right", zap.Error(err))
	}
}

func (k *Keeper) say(generation uint64, what *report, text report) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if generation == k.generation {
		*what = text
	}
}

// as changes the interface on behalf of a generation.
func (k *Keeper) as(generation uint64, change func(l netlink.Link, note *record) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if generation != k.generation {
		return errStale
	}
	l, note, err := k.look()
	if err != nil {
		return err
	}
	if note.sensor != k.sensor() {
		return errStale
	}
	return change(l, &note)
}

func (k *Keeper) sensor() string { return k.cfg.SensorID[:sensorIDLen] }

// Observe reads the interface as it is, and says what is wrong with it.
func (k *Keeper) Observe() (helperapi.InterfaceObserved, error) {
	k.mu.Lock()
	wish, taken, kept, eapol, dhcp := k.wish, k.taken, k.kept, k.eapol, k.dhcp
	k.mu.Unlock()
	seen, faults, err := observe(k.cfg.Iface, wish)
	if err != nil {
		return seen, err
	}
	if taken != "" {
		taken = "sensor " + taken + " has the interface now"
	}
	seen.Problem = firstOf(faults.link, eapol.problem, dhcp.problem, faults.address, faults.difference)
	seen.Note = firstOf(taken, dhcp.note, kept, eapol.note)
	return seen, nil
}

func firstOf(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// Remove brings the interface back to what it was before the sensor.
func (k *Keeper) Remove() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wish, k.taken, k.kept, k.dhcp, k.eapol = nil, "", "", report{}, report{}
	k.generation++
	given := k.lease
	k.lease = nil
	l, note, err := k.look()
	var known *helperapi.Error
	if errors.As(err, &known) {
		return nil // The interface has gone, with all that was changed.
	}
	if err != nil {
		return err
	}
	if note.sensor != k.sensor() {
		return nil
	}
	if given != nil && note.address == given.address {
		if err := (&asker{iface: k.cfg.Iface, mac: l.Attrs().HardwareAddr}).release(*given); err != nil {
			k.log.Warn("give lease back", zap.Error(err))
		}
	}
	return undo(l, note, k.cfg.ResolvConf)
}

func (k *Keeper) bridge() string { return link.BridgeName(k.cfg.SensorID) }
