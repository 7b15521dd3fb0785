#!/usr/bin/env bash
# Makes the base image, of Debian's official one where a registry can be reached
# and otherwise of Debian's packages, and prints its name. Its files that need no
# engine are kept in CACHE: the root file system, so that a second build only
# imports it, and the list of its packages, base-KEY.status.
#
# Usage: base.sh CACHE
set -euo pipefail
cache=$1
here=$(cd "$(dirname "$0")" && pwd)
public=debian:trixie-slim

key=$(cat "$here/packages" "$here/setup.sh" "$here/base.Dockerfile" | sha256sum | cut -c1-12)
name=honeysens/base:$key
root=$cache/base-$key.tar
mkdir -p "$cache"

made() { docker image inspect "$name" >/dev/null 2>&1; }

# Several builds of this directory, with whichever builder the engine has.
build() {
  docker build --quiet --tag "$name" --file "$here/base.Dockerfile" "$here" >/dev/null
}

import() {
  if [ ! -e "$root" ]; then
    echo "making the base image of Debian packages (a minute)" >&2
    # SOURCE_DATE_EPOCH: no time of this build is left in it.
    # shellcheck disable=SC2016
    SOURCE_DATE_EPOCH=0 mmdebstrap --quiet --variant=minbase --include="$(paste -sd, "$here/packages")" \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
      --customize-hook="copy-in $here/packages $here/setup.sh /tmp" \
      --customize-hook='chroot "$1" sh /tmp/setup.sh /tmp/packages && rm "$1/tmp/setup.sh" "$1/tmp/packages"' \
      trixie "$root.part.tar" >&2
    mv "$root.part.tar" "$root"
  fi
  docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$root" "$name" >/dev/null
}

if ! made; then
  if docker image inspect "$public" >/dev/null 2>&1 || docker pull --quiet "$public" >/dev/null 2>&1; then build; else import; fi
fi
if [ ! -e "$cache/base-$key.status" ]; then
  container=$(docker create --network none "$name" true)
  docker cp "$container:/var/lib/dpkg/status" "$cache/base-$key.status.part"
  docker rm "$container" >/dev/null
  mv "$cache/base-$key.status.part" "$cache/base-$key.status"
fi
echo "$name"
