// Package logging makes the logger of every program of the sensor: one line an
// entry on standard error, as JSON or for a person at a terminal, with a level
// that can change while it runs.
package logging

import (
	"fmt"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// ParseLevel reads a level as LOG_LVL has it: debug, info, warn, warning or
// error, in any case.
func ParseLevel(text string) (zapcore.Level, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "debug":
		return zapcore.DebugLevel, nil
	case "", "info":
		return zapcore.InfoLevel, nil
	case "warn", "warning":
		return zapcore.WarnLevel, nil
	case "error":
		return zapcore.ErrorLevel, nil
	}
	return zapcore.InfoLevel, fmt.Errorf("unknown log level %q: want debug, info, warn or error", text)
}

// New returns a logger named after its program, and the level that steers it.
func New(name string, level zapcore.Level) (*zap.Logger, zap.AtomicLevel, error) {
	steer := zap.NewAtomicLevelAt(level)
	cfg := zap.NewProductionConfig()
	cfg.Level = steer
	cfg.Sampling = nil
	cfg.DisableCaller = true
	cfg.DisableStacktrace = true
	cfg.EncoderConfig.TimeKey = "time"
	cfg.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	if terminal(os.Stderr) {
		cfg.Encoding = "console"
		cfg.EncoderConfig.EncodeTime = zapcore.TimeEncoderOfLayout(time.TimeOnly)
		cfg.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
	}
	logger, err := cfg.Build()
	if err != nil {
		return nil, steer, fmt.Errorf("build logger: %w", err)
	}
	return logger.Named(name), steer, nil
}

// terminal tells whether a person reads what is written to a file.
func terminal(file *os.File) bool {
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}
