#!/usr/bin/env bash
# Has cyclonedx-gomod describe each Go program, by what the compiler noted in it:
# DIR/NAME.json. What was described is kept in CACHE by the program's digest.
# GO names the go command.
#
# Usage: boms.sh CACHE DIR VERSION PROGRAM...    with PROGRAM[=VERSION of its module]
set -euo pipefail
cache=$1 dir=$2 default=$3
shift 3
tool=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

mkdir -p "$cache" "$dir"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for entry in "$@"; do
  program=${entry%%=*} version=$default
  [ "$program" = "$entry" ] || version=${entry#*=}
  kept=$cache/$(printf '%s %s %s' "$tool" "$version" "$(sha256sum <"$program")" | sha256sum | cut -c1-24).json
  if [ ! -s "$kept" ]; then
    # shellcheck disable=SC2086
    ${GO:-go} run "$tool" bin -json -licenses -assert-licenses -noserial -notimestamp -std \
      -version "$version" -output "$kept.part" "$program" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
    mv "$kept.part" "$kept"
  fi
  cp "$kept" "$dir/$(basename "$program").json"
done
