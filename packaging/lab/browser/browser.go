// Package browser drives a headless Chromium for tests of pages, by its DevTools
// protocol over a pipe: no port is opened, and the browser ends with the pipe.
package browser

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// endWithin is how long a browser may take to end.
const endWithin = 10 * time.Second

// Arguments are those of a Chromium that asks nobody for anything by itself.
// Root has no sandbox there.
func Arguments(profile string) []string {
	return []string{
		"--headless", "--no-sandbox", "--remote-debugging-pipe", "--user-data-dir=" + profile,
		"--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
		"--disable-default-apps", "--disable-sync", "--no-first-run", "--hide-scrollbars", "--window-size=1280,900",
	}
}

// Page is a page in a browser.
type Page struct {
	cmd     *exec.Cmd
	in, out *os.File
	session string
	done    chan struct{}

	mu       sync.Mutex
	next     int
	waiting  map[int]chan answer
	requests []string
	errors   []string
}

type answer struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// Open starts a browser, a command with Arguments, and opens a page.
func Open(ctx context.Context, cmd *exec.Cmd, url string) (*Page, error) {
	// The browser reads commands from descriptor 3 and answers on 4.
	commands, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start browser: %w", err)
	}
	out, answers, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start browser: %w", err)
	}
	cmd.ExtraFiles = []*os.File{commands, answers}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	_, _ = commands.Close(), answers.Close()
	if err != nil {
		return nil, fmt.Errorf("start browser: %w", err)
	}
	p := &Page{cmd: cmd, in: in, out: out, done: make(chan struct{}), waiting: map[int]chan answer{}}
	go p.read()
	if err := p.attach(ctx, url); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Page) attach(ctx context.Context, url string) error {
	var target struct{ TargetID string }
	if err := p.call(ctx, "Target.createTarget", map[string]any{"url": "about:blank"}, &target); err != nil {
		return err
	}
	var attached struct{ SessionID string }
	if err := p.call(ctx, "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached); err != nil {
		return err
	}
	p.session = attached.SessionID
	for _, method := range []string{"Page.enable", "Runtime.enable", "Network.enable", "Log.enable"} {
		if err := p.call(ctx, method, nil, nil); err != nil {
			return err
		}
	}
	return p.call(ctx, "Page.navigate", map[string]any{"url": url}, nil)
}

// Close ends the browser, all processes of it: they write into the profile until
// they have ended.
func (p *Page) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	p.session = ""
	_ = p.call(ctx, "Browser.close", nil, nil)
	select {
	case <-p.done:
	case <-ctx.Done():
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
	_ = p.in.Close()
	_ = p.cmd.Wait()
	return p.out.Close()
}

// read takes what the browser says until it ends.
func (p *Page) read() {
	defer close(p.done)
	reader := bufio.NewReader(p.out)
	for {
		text, err := reader.ReadBytes(0)
		if err != nil {
			return
		}
		var a answer
		if json.Unmarshal(text[:len(text)-1], &a) != nil {
			continue
		}
		p.take(a)
	}
}

func (p *Page) take(a answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch a.Method {
	case "":
		if waiting := p.waiting[a.ID]; waiting != nil {
			delete(p.waiting, a.ID)
			waiting <- a
		}
	case "Network.requestWillBeSent":
		var sent struct {
			Request struct{ URL string }
		}
		if json.Unmarshal(a.Params, &sent) == nil {
			p.requests = append(p.requests, sent.Request.URL)
		}
	case "Runtime.exceptionThrown", "Log.entryAdded":
		p.errors = append(p.errors, string(a.Params))
	}
}

func (p *Page) call(ctx context.Context, method string, params, result any) error {
	p.mu.Lock()
	p.next++
	id, waiting := p.next, make(chan answer, 1)
	p.waiting[id] = waiting
	p.mu.Unlock()
	message := map[string]any{"id": id, "method": method}
	if params != nil {
		message["params"] = params
	}
	if p.session != "" {
		message["sessionId"] = p.session
	}
	text, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("browser: %s: %w", method, err)
	}
	if _, err := p.in.Write(append(text, 0)); err != nil {
		return fmt.Errorf("browser: %s: %w", method, err)
	}
	select {
	case a := <-waiting:
		if a.Error != nil {
			return fmt.Errorf("browser: %s: %s", method, a.Error.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(a.Result, result)
	case <-p.done:
		return fmt.Errorf("browser: %s: the browser has ended", method)
	case <-ctx.Done():
		return fmt.Errorf("browser: %s: %w", method, ctx.Err())
	}
}

// Text returns what a JavaScript expression says, as text.
func (p *Page) Text(ctx context.Context, expression string) (string, error) {
	var evaluated struct {
		Result           struct{ Value any }
		ExceptionDetails *struct{ Text string }
	}
	err := p.call(ctx, "Runtime.evaluate", map[string]any{"expression": "String(" + expression + ")", "returnByValue": true}, &evaluated)
	if err != nil {
		return "", err
	}
	if evaluated.ExceptionDetails != nil {
		return "", fmt.Errorf("evaluate %s: %s", expression, evaluated.ExceptionDetails.Text)
	}
	text, _ := evaluated.Result.Value.(string)
	return text, nil
}

// Wait waits until the page shows all of these texts.
func (p *Page) Wait(ctx context.Context, wanted ...string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := p.Text(ctx, "document.body ? document.body.innerText : ''")
		missing := slices.IndexFunc(wanted, func(want string) bool { return !strings.Contains(text, want) })
		if err == nil && missing < 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the page does not show %q but:\n%s", wanted[max(missing, 0)], text), err)
		}
	}
}

// Requests returns the addresses that the page asked for.
func (p *Page) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// Errors returns exceptions and messages of the browser about the page.
func (p *Page) Errors() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.errors)
}

// Screenshot returns a PNG of what a person sees.
func (p *Page) Screenshot(ctx context.Context) ([]byte, error) {
	var shot struct{ Data string }
	if err := p.call(ctx, "Page.captureScreenshot", map[string]any{"format": "png"}, &shot); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(shot.Data)
}
