#!/usr/bin/env bash
# Makes the base image of Debian's packages, for machines that reach no image
# registry, and prints its name. The root file system is kept in CACHE; a second
# build only imports it.
#
# Usage: base.sh CACHE
set -euo pipefail
cache=$1
here=$(cd "$(dirname "$0")" && pwd)

key=$(cat "$here/packages" "$here/setup.sh" | sha256sum | cut -c1-12)
name=honeysens/base:$key
root=$cache/base-$key.tar

if docker image inspect "$name" >/dev/null 2>&1; then
  echo "$name"
  exit 0
fi
if [ ! -e "$root" ]; then
  echo "making the base image of Debian packages (a minute)" >&2
  mkdir -p "$cache"
  # shellcheck disable=SC2016
  mmdebstrap --quiet --variant=minbase --include="$(paste -sd, "$here/packages")" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="copy-in $here/packages $here/setup.sh /tmp" \
    --customize-hook='chroot "$1" sh /tmp/setup.sh /tmp/packages && rm "$1/tmp/setup.sh" "$1/tmp/packages"' \
    trixie "$root.part.tar" >&2
  mv "$root.part.tar" "$root"
fi
docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$root" "$name" >/dev/null
echo "$name"
