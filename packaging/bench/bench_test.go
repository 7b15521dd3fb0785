package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const output = `goos: linux
pkg: honeysens.org/dockersensor/manager/internal/spool
BenchmarkAppend/producers=8-2         	   12000	    100000 ns/op	      9000 events/s	         0.80 of-a-bare-log	 10 B/op
BenchmarkAppend/producers=8-2         	   12000	    300000 ns/op	      7000 events/s	         0.90 of-a-bare-log	 10 B/op
BenchmarkAppend/producers=8-2         	   12000	    200000 ns/op	      8000 events/s	         0.70 of-a-bare-log	 10 B/op
PASS
pkg: honeysens.org/dockersensor/nethelper
BenchmarkNetnsApply-2   3   5000000 ns/op
ok
`

func TestTable(t *testing.T) {
	out := filepath.Join(t.TempDir(), "bench.md")
	var screen strings.Builder
	if err := run([]string{"1.2.3", out}, strings.NewReader(output), &screen); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# Benchmarks of 1.2.3\n",
		"| manager/internal/spool | Append/producers=8 | 200 µs | 100 µs – 300 µs | 3 |  |\n",
		"| manager/internal/spool | Append/producers=8 | 8000 events/s | 7000 events/s – 9000 events/s | 3 |  |\n",
		"| manager/internal/spool | Append/producers=8 | 0.80 × | 0.70 – 0.90 | 3 | **ratio**: of a log that is only written and synced |\n",
		"| nethelper | NetnsApply | 5.00 ms | 5.00 ms – 5.00 ms | 1 |  |\n",
		"Load before",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if !strings.Contains(screen.String(), "BenchmarkNetnsApply-2   3") {
		t.Error("the output of go test is not shown")
	}
}

func TestFailures(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "PASS\n", "a failure": output + "--- FAIL: BenchmarkX\nFAIL\thoneysens.org/dockersensor/nethelper\t1s\n",
		"no number": "BenchmarkX 1 many ns/op\n",
	} {
		if err := run([]string{"1", filepath.Join(t.TempDir(), "out")}, strings.NewReader(text), new(strings.Builder)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
