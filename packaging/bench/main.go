// Command bench makes one table of what the benchmarks printed: it reads the
// output of go test from its standard input, shows it, and writes a document with
// the median of each figure, its spread, and the conditions.
//
// Figures of benchmarks that compare two things in the same run are ratios, and
// marked so: these can be compared between machines, the others cannot.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, screen io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: go test -bench . | bench REVISION OUT.md")
	}
	before := load()
	figures, err := read(io.TeeReader(in, screen))
	if err != nil {
		return err
	}
	text := document(args[0], figures, conditions(before))
	if err := os.WriteFile(args[1], []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	_, err = fmt.Fprintf(screen, "\n%s\n%s\n", text, args[1])
	return err
}

// figure is one number that a benchmark reports, of all its runs.
type figure struct {
	pkg, name, unit string
	values          []float64
}

// ratios are the units of figures that are relative to something in the same run,
// and what that is.
var ratios = map[string]string{
	"requests":        "times a bare request to the server",
	"runs-of-version": "times the start and end of a Go program",
	"of-a-bare-log":   "of a log that is only written and synced",
	"ratio":           "of the rate without redirect",
}

var line = regexp.MustCompile(`^(Benchmark\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)

// read parses the output of go test (go.dev/design/14313-benchmark-format). Runs
// of the same benchmark are gathered. No benchmark, or one that failed, is an
// error.
func read(in io.Reader) ([]*figure, error) {
	var all []*figure
	found, pkg := map[string]*figure{}, ""
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 1<<20)
	var failed []string
	for scanner.Scan() {
		text := scanner.Text()
		if name, ok := strings.CutPrefix(text, "pkg: "); ok {
			pkg = strings.TrimPrefix(name, "honeysens.org/dockersensor/")
		}
		if strings.HasPrefix(text, "--- FAIL") || strings.HasPrefix(text, "FAIL\t") {
			failed = append(failed, strings.TrimSpace(text))
		}
		match := line.FindStringSubmatch(text)
		if match == nil {
			continue
		}
		fields := strings.Fields(match[2])
		for i := 0; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %q is no number", match[1], fields[i])
			}
			key := pkg + " " + match[1] + " " + fields[i+1]
			if found[key] == nil {
				found[key] = &figure{pkg: pkg, name: strings.TrimPrefix(match[1], "Benchmark"), unit: fields[i+1]}
				all = append(all, found[key])
			}
			found[key].values = append(found[key].values, value)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read benchmarks: %w", err)
	}
	if len(failed) > 0 {
		return nil, fmt.Errorf("benchmarks failed: %s", strings.Join(failed, "; "))
	}
	if len(all) == 0 {
		return nil, errors.New("there was no benchmark")
	}
	return all, nil
}

// document is the table. Bytes and allocations belong to benchmarks of code, and
// say little here.
func document(revision string, figures []*figure, conditions string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmarks of %s\n\n%s\nMedians of all runs, with the least and the most. Ratios compare with something in the same run.\n\n", revision, conditions)
	fmt.Fprintf(&b, "| package | benchmark | median | least – most | runs | |\n| --- | --- | ---: | ---: | ---: | --- |\n")
	for _, f := range figures {
		if f.unit == "B/op" || f.unit == "allocs/op" {
			continue
		}
		unit, note := f.unit, ""
		if what, ok := ratios[f.unit]; ok {
			unit, note = "×", "**ratio**: "+what
		}
		value, unit := scale(median(f.values), unit)
		least, leastUnit := scale(slices.Min(f.values), f.unit)
		most, mostUnit := scale(slices.Max(f.values), f.unit)
		if note != "" {
			leastUnit, mostUnit = "", ""
		}
		spread := strings.TrimSpace(least+" "+leastUnit) + " – " + strings.TrimSpace(most+" "+mostUnit)
		fmt.Fprintf(&b, "| %s | %s | %s %s | %s | %d | %s |\n", f.pkg, strings.ReplaceAll(f.name, "_", " "), value, unit, spread, len(f.values), note)
	}
	return b.String()
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// scale makes nanoseconds readable.
func scale(value float64, unit string) (string, string) {
	if unit == "ns/op" {
		d := time.Duration(value)
		switch {
		case d >= time.Second:
			return number(d.Seconds()), "s"
		case d >= time.Millisecond:
			return number(float64(d) / float64(time.Millisecond)), "ms"
		case d >= time.Microsecond:
			return number(float64(d) / float64(time.Microsecond)), "µs"
		}
		return number(value), "ns"
	}
	return number(value), unit
}

// number has three digits that count.
func number(value float64) string {
	switch {
	case value >= 100:
		return strconv.FormatFloat(value, 'f', 0, 64)
	case value >= 10:
		return strconv.FormatFloat(value, 'f', 1, 64)
	}
	return strconv.FormatFloat(value, 'f', 2, 64)
}

// conditions describes the machine, and how busy it was.
func conditions(before string) string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		release = []byte("unknown")
	}
	return fmt.Sprintf("%s, Linux %s, %s, %d processors (%s). Load before: %s, after: %s. On a busy machine, only the ratios mean something.\n",
		time.Now().UTC().Format("2006-01-02 15:04"), strings.TrimSpace(string(release)), runtime.Version(), runtime.NumCPU(), processor(), before, load())
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for l := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// load is that of the last minute (proc_loadavg(5)).
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Fields(string(text))[0]
}
