// Command runcshim is an OCI runtime in front of runc for machines on which
// even root lacks a capability, as in many build environments: there runc
// refuses to give a privileged container what it does not have ("unable to
// apply caps"). It takes those capabilities out of the container's
// specification and becomes runc.
//
// Only the lab needs it. On a machine that lacks none it changes nothing.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "runcshim:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return fmt.Errorf("find runc: %w", err)
	}
	if path, keys := specification(args); path != "" {
		missing, err := missingCapabilities()
		if err != nil {
			return err
		}
		if err := rewrite(path, keys, missing); err != nil {
			return err
		}
	}
	if err := unix.Exec(runc, append([]string{"runc"}, args...), os.Environ()); err != nil {
		return fmt.Errorf("start runc: %w", err)
	}
	return nil
}

// specification finds the file that a command reads capabilities from, and the
// keys that lead to them; "" when it reads none.
func specification(args []string) (path string, keys []string) {
	for i, arg := range args {
		switch arg {
		case "create", "run":
			bundle := option(args[i:], "--bundle", "-b")
			return filepath.Join(bundle, "config.json"), []string{"process", "capabilities"}
		case "exec":
			return option(args[i:], "--process", "-p"), []string{"capabilities"}
		}
	}
	return "", nil
}

func option(args []string, long, short string) string {
	for i, arg := range args {
		if value, ok := strings.CutPrefix(arg, long+"="); ok {
			return value
		}
		if (arg == long || arg == short) && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

func missingCapabilities() (map[string]bool, error) {
	missing := map[string]bool{}
	for _, c := range capability.ListKnown() {
		have, err := capability.GetBound(c)
		if err != nil {
			return nil, fmt.Errorf("look for capability %s: %w", c, err)
		}
		if !have {
			missing["CAP_"+strings.ToUpper(c.String())] = true
		}
	}
	return missing, nil
}

// rewrite takes capabilities out of every list in the object to which keys lead.
func rewrite(path string, keys []string, missing map[string]bool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read specification: %w", err)
	}
	var spec map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&spec); err != nil {
		return fmt.Errorf("read specification %s: %w", path, err)
	}
	strip(spec, keys, missing)
	if text, err = json.Marshal(spec); err != nil {
		return fmt.Errorf("encode specification: %w", err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("write specification: %w", err)
	}
	return nil
}

func strip(spec map[string]any, keys []string, missing map[string]bool) {
	for _, key := range keys {
		next, ok := spec[key].(map[string]any)
		if !ok {
			return
		}
		spec = next
	}
	for set, value := range spec {
		names, ok := value.([]any)
		if !ok {
			continue
		}
		kept := []any{}
		for _, name := range names {
			if text, ok := name.(string); !ok || !missing[text] {
				kept = append(kept, name)
			}
		}
		spec[set] = kept
	}
}
