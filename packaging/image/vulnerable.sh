#!/usr/bin/env bash
# Looks for known vulnerabilities in the programs of the image: govulncheck reads
# from each which modules it holds. It does not ask whether the functions at fault
# are in it: the programs have no symbols, and would pass for free of them.
#
# The database is VULNDB, by default the one of the Go project; a copy for machines
# that do not reach it is a directory, VULNDB=file:///path/to/vulndb. GO names the
# go command.
#
# Exit status: 0 none found, 1 some found, 2 could not be examined.
#
# Usage: vulnerable.sh PROGRAM...
set -euo pipefail
tool=golang.org/x/vuln/cmd/govulncheck@v1.9.0
database=${VULNDB:-https://vuln.go.dev}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
found=0
for program in "$@"; do
  status=0
  # shellcheck disable=SC2086
  ${GO:-go} run "$tool" -db "$database" -mode binary -scan module "$program" >"$log" 2>&1 || status=$?
  # `go run` has the status 1 for everything: the text tells what it was.
  if grep -q -E 'fetching vulnerabilities|reading vulnerability|invalid db|unknown scheme' "$log"; then
    cat "$log" >&2
    echo "NOT EXAMINED: the vulnerability database $database cannot be read. Run this where it can be reached," >&2
    echo "or give a copy of it: make vulnerable VULNDB=file:///path/to/vulndb" >&2
    exit 2
  elif [ $status != 0 ] && grep -q '^Vulnerability #' "$log"; then
    echo "$program:"
    cat "$log"
    found=1
  elif [ $status != 0 ]; then
    cat "$log" >&2
    echo "NOT EXAMINED: $program" >&2
    exit 2
  else
    echo "$program: no known vulnerabilities"
  fi
done
exit $found
