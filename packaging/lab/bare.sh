#!/usr/bin/env bash
# Runs make on a machine with nothing but Debian's base system, git, make and Go,
# in a clone of the last commit: a root directory of its own, in which require.sh
# has to name and install all that builds and tests need. It shares this machine's
# kernel, its network, for packages and modules, and the caches of Go; nothing
# else. As root.
#
# Usage: bare.sh DIR TARGET...
set -euo pipefail
dir=$(realpath -m "$1")
shift
here=$(cd "$(dirname "$0")/../.." && pwd)
suite=bookworm
base=$dir/$suite.tar
root=$dir/root

# inside makes the root directory this process's own and runs make there.
inside() {
  mount --bind "$root" "$root"
  mount --make-private "$root"
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount --rbind /sys "$root/sys"
  mount --make-rslave "$root/dev"
  mount --make-rslave "$root/sys"
  bring "$(go env GOROOT)" /usr/local/go
  bring "$(go env GOMODCACHE)" /root/go/pkg/mod
  bring "$(go env GOCACHE)" /root/.cache/go-build
  # What a test did elsewhere says nothing about this machine.
  local environment=(PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root CI=true
    "GOFLAGS=$(go env GOFLAGS) -count=1" "GOPROXY=$(go env GOPROXY)" "GOSUMDB=$(go env GOSUMDB)" "GONOSUMDB=$(go env GONOSUMDB)")
  cd "$root"
  # Not chroot alone: container runtimes change the root, too, and refuse in one.
  mkdir -p old
  pivot_root . old
  # This shell stays: it takes in what others leave behind, as the first process of
  # its process numbers.
  # shellcheck disable=SC2016
  exec chroot . env -i "${environment[@]}" bash -c 'umount --lazy /old && rmdir /old && cd /src && make "$@" || exit $?; exit 0' make "$@"
}

bring() { # FROM TO
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
}

[ "$(id -u)" = 0 ] || { echo "bare.sh needs root" >&2; exit 1; }
if [ -n "${BARE_INSIDE:-}" ]; then inside "$@"; fi

mkdir -p "$dir"
# Sources in there are none of this module.
echo "module bare" >"$dir/go.mod"
if [ ! -e "$base" ]; then
  echo "making Debian's base system"
  mmdebstrap --quiet --variant=minbase --include=git,make "$suite" "$base.part.tar"
  mv "$base.part.tar" "$base"
fi
rm -rf --one-file-system "$root"
trap 'rm -rf --one-file-system "$root"' EXIT
mkdir -p "$root"
tar --extract --file "$base" --directory "$root" --exclude './dev/*'
cp /etc/resolv.conf "$root/etc/resolv.conf"
# Where packages come from, and by which proxy, is this machine's affair.
cp -r /etc/apt/. "$root/etc/apt/" 2>/dev/null || true
cp -r /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
mkdir -p "$root/etc/ssl/certs"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" 2>/dev/null || true
git clone --quiet --depth 1 "file://$here" "$root/src"
# Mounts of its own, and processes that end with this one.
BARE_INSIDE=1 unshare --mount --pid --fork --kill-child "$0" "$dir" "$@"
