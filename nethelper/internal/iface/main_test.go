package iface

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// configVariable turns the test program into a Keeper: goroutines of a test do
// not stay in a namespace, processes do.
const configVariable = "IFACE_KEEPER_CONFIG"

func TestMain(m *testing.M) {
	if config := os.Getenv(configVariable); config != "" {
		if err := runKeeper(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// order is what a test tells its Keeper: a wish, to remove everything, or
// nothing, which only asks how things are.
type order struct {
	Wish   *helperapi.Interface
	Remove bool
}

type answer struct {
	Seen  helperapi.InterfaceObserved
	Error string
}

var services = []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24")}

func runKeeper(config string) error {
	var cfg Config
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return err
	}
	log, err := zap.NewDevelopment()
	if err != nil {
		return err
	}
	k := New(cfg, log)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { err = k.Run(ctx) })
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return err
		}
		if o.Remove {
			cancel()
			running.Wait()
		}
		if err := json.NewEncoder(os.Stdout).Encode(k.obey(o)); err != nil {
			return err
		}
	}
	cancel()
	running.Wait()
	return err
}

func (k *Keeper) obey(o order) answer {
	var a answer
	var err error
	switch {
	case o.Wish != nil:
		err = k.Ensure(*o.Wish, services)
	case o.Remove:
		err = k.Remove()
	}
	if err == nil {
		a.Seen, err = k.Observe()
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// keeper is a Keeper in a namespace.
type keeper struct {
	t   *testing.T
	cfg Config
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
	end func() error
}

const testID = "a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4"

func testConfig(t *testing.T) Config {
	return Config{
		SensorID: testID, Iface: "eth0", Dir: t.TempDir(),
		Patience: 100 * time.Millisecond, Answer: 300 * time.Millisecond, Retry: 200 * time.Millisecond, Look: 20 * time.Millisecond,
	}
}

func startKeeper(t *testing.T, host *nettest.Host, cfg Config) *keeper {
	t.Helper()
	config, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	k := &keeper{t: t, cfg: cfg, cmd: exec.Command(os.Args[0])}
	k.cmd.Env = append(os.Environ(), configVariable+"="+string(config))
	k.cmd.Stderr = &log
	in, err := k.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	k.in, k.out = json.NewEncoder(in), json.NewDecoder(out)
	if err := host.Start(k.cmd); err != nil {
		t.Fatal(err)
	}
	k.end = sync.OnceValue(func() error {
		in.Close()
		return k.cmd.Wait()
	})
	t.Cleanup(func() {
		_ = k.cmd.Process.Kill()
		_ = k.end()
		if t.Failed() {
			t.Logf("keeper:\n%s", log.String())
		}
	})
	return k
}

func (k *keeper) tell(o order) answer {
	k.t.Helper()
	var a answer
	if err := k.in.Encode(o); err != nil {
		k.t.Fatal(err)
	}
	if err := k.out.Decode(&a); err != nil {
		k.t.Fatal(err)
	}
	return a
}

func (k *keeper) want(wish helperapi.Interface) helperapi.InterfaceObserved {
	k.t.Helper()
	wish.Name = k.cfg.Iface
	a := k.tell(order{Wish: &wish})
	if a.Error != "" {
		k.t.Fatal(a.Error)
	}
	return a.Seen
}

func (k *keeper) remove() {
	k.t.Helper()
	if a := k.tell(order{Remove: true}); a.Error != "" {
		k.t.Fatal(a.Error)
	}
}

// until waits until the interface is as ok likes it.
func (k *keeper) until(what string, ok func(helperapi.InterfaceObserved) bool) helperapi.InterfaceObserved {
	k.t.Helper()
	var last answer
	deadline, tick := time.After(20*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		if last = k.tell(order{}); last.Error == "" && ok(last.Seen) {
			return last.Seen
		}
		select {
		case <-deadline:
			k.t.Fatalf("not within 20 seconds: %s; last %+v", what, last)
		case <-tick.C:
		}
	}
}

func has(address string) func(helperapi.InterfaceObserved) bool {
	return func(seen helperapi.InterfaceObserved) bool {
		for _, prefix := range seen.Addresses {
			if prefix.String() == address {
				return true
			}
		}
		return false
	}
}

func hasProblem(part string) func(helperapi.InterfaceObserved) bool {
	return func(seen helperapi.InterfaceObserved) bool { return strings.Contains(seen.Problem, part) }
}

// program starts a program in a namespace until the test, or the returned
// function, ends it. Its output is in the returned file.
func program(t *testing.T, host *nettest.Host, name string, args ...string) (stop func(), logFile string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := host.Start(cmd); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Close()
		if raw, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s:\n%s", name, raw)
		}
	})
	t.Cleanup(stop)
	return stop, log.Name()
}
