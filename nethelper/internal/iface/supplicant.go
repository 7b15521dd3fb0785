package iface

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
)

const (
	// restartDelay is between the end of a supplicant and the next one.
	restartDelay = 5 * time.Second
	// endTimeout is how long a supplicant may take to end before it is killed.
	endTimeout = 2 * time.Second
	// maxLine is the longest line that is read of a supplicant, in bytes.
	maxLine = 4096
)

// supplicant runs wpa_supplicant for one wish, again and again until its ctx
// ends.
type supplicant struct {
	program, iface, dir string
	want                *helperapi.EAPOL
	// says is called whenever what there is to say changes: a problem, a note.
	says func(problem, note string)
	// opened is called when the switch lets the interface in.
	opened func()
	log    *zap.Logger
	// doubted is true after the other side's certificate was refused, until the
	// next attempt.
	doubted bool
}

func (s *supplicant) run(ctx context.Context) {
	for ctx.Err() == nil {
		s.says(fmt.Sprintf("802.1X at %s: not authenticated yet", s.iface), "")
		err := s.once(ctx)
		if ctx.Err() != nil {
			break
		}
		s.log.Error("supplicant ended", zap.Error(err))
		s.says(fmt.Sprintf("802.1X at %s: wpa_supplicant does not run: %v", s.iface, err), "")
		select {
		case <-ctx.Done():
		case <-time.After(restartDelay):
		}
	}
	if err := removeFiles(s.dir); err != nil {
		s.log.Error("end supplicant", zap.Error(err))
	}
}

// once runs the program until it or ctx ends.
func (s *supplicant) once(ctx context.Context) error {
	config, err := writeFiles(s.dir, s.want)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, s.program, "-D", "wired", "-i", s.iface, "-c", config)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endTimeout
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	// The kernel ends it when the helper is killed, which it takes to be the end
	// of the thread that started it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start: %w", err), read.Close(), write.Close())
	}
	s.log.Info("supplicant started", zap.Stringer("wish", s.want), zap.Int("pid", cmd.Process.Pid))
	_ = write.Close()
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		s.listen(read)
	}()
	err = cmd.Wait()
	<-listened
	_ = read.Close()
	if err == nil {
		err = errors.New("it ended by itself")
	}
	return err
}

// listen turns what the program prints into what there is to say.
func (s *supplicant) listen(from io.Reader) {
	lines := bufio.NewReaderSize(from, maxLine)
	for {
		line, tooLong, err := lines.ReadLine()
		if err != nil {
			return
		}
		s.heard(string(line))
		for tooLong && err == nil {
			_, tooLong, err = lines.ReadLine()
		}
	}
}

// heard goes by the beginnings of lines only: what follows may come from the
// other side of the cable.
func (s *supplicant) heard(line string) {
	event, ours := strings.CutPrefix(line, s.iface+": ")
	if !ours {
		return
	}
	starts := func(name string) bool { return strings.HasPrefix(event, name) }
	switch {
	case starts("CTRL-EVENT-EAP-STARTED"):
		s.doubted = false
	case starts("CTRL-EVENT-EAP-FAILURE") && s.doubted:
		// It has been said why.
	case starts("CTRL-EVENT-EAP-SUCCESS"):
		s.log.Info("802.1X succeeded")
		s.says("", fmt.Sprintf("802.1X at %s: authenticated by %s", s.iface, s.want.Method))
		s.opened()
	case starts("CTRL-EVENT-EAP-FAILURE"):
		s.log.Warn("802.1X failed")
		s.says(fmt.Sprintf("802.1X at %s: refused; check identity, password and certificates at the server", s.iface), "")
	case starts("CTRL-EVENT-EAP-TLS-CERT-ERROR"):
		s.doubted = true
		s.log.Warn("802.1X: certificate of the other side refused")
		s.says(fmt.Sprintf("802.1X at %s: the certificate of the authentication server is not of the CA that is set", s.iface), "")
	}
}
