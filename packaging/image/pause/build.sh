#!/bin/sh
# Builds the pause program of the sandboxes.
#
# Usage: build.sh OUTPUT    with CC naming the C compiler (default: cc)
set -eu
[ $# -eq 1 ] || { echo "usage: build.sh OUTPUT" >&2; exit 2; }
exec "${CC:-cc}" -Wall -Wextra -Werror -Os -static -nostdlib -ffreestanding -fno-stack-protector \
  -fno-asynchronous-unwind-tables -Wl,--build-id=none -Wl,-z,noexecstack -s \
  -o "$1" "$(dirname "$0")/pause.c"
