#!/usr/bin/env bash
# Shows which pinned versions have newer ones: the modules that go.mod names
# itself, and the tools of the build. It asks the Go module proxy; GO names the
# go command.
#
# Usage: outdated.sh TOOL@VERSION...    with the module of each tool
set -euo pipefail
go=${GO:-go}

newer='{{.Path}} {{.Version}} {{with .Update}}{{.Version}}{{else}}-{{end}}'
{
  # shellcheck disable=SC2016,SC2046
  $go list -m -u -f "$newer" $($go list -m -f '{{if not .Indirect}}{{if not .Main}}{{.Path}}{{end}}{{end}}' all)
  # Outside of the module: the tools are no part of it.
  [ $# = 0 ] || (cd / && $go list -m -u -f "$newer" "$@")
} | awk '
  BEGIN { printf "%-60s %-44s %s\n", "MODULE", "PINNED", "NEWER" }
  $3 != "-" { printf "%-60s %-44s %s\n", $1, $2, $3; newer++ }
  END { printf "\n%d of %d modules and tools have newer versions\n", newer, NR }
'
