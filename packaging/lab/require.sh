#!/usr/bin/env bash
# Sees to the programs that tests and lab need: installs what is missing on
# Debian and Ubuntu as root and says so, elsewhere says what to install.
#
# Usage: require.sh GROUP...    with GROUP of: unit test lab host newest
set -euo pipefail

# The client is a package of its own from Debian 13 on.
client=docker.io
if grep -qx 'ID=debian' /etc/os-release 2>/dev/null && ! grep -qE '^VERSION_ID="(1[0-2]|[0-9])"' /etc/os-release; then client=docker-cli; fi

# command:package, as Debian names them; for a library its path instead of a command.
compiler="gcc:gcc /usr/include/stdio.h:libc6-dev /etc/ssl/certs/ca-certificates.crt:ca-certificates"
unit_needs=$compiler
test_needs="$compiler ip:iproute2 nft:nftables iptables-nft:iptables conntrack:conntrack ping:iputils-ping python3:python3 tcpdump:tcpdump sysctl:procps
  /usr/lib/python3/dist-packages/zmq:python3-zmq dnsmasq:dnsmasq-base hostapd:hostapd wpa_supplicant:wpasupplicant openssl:openssl
  iptables-legacy:iptables ufw:ufw firewall-cmd:firewalld dbus-daemon:dbus dockerd:docker.io strace:strace squid:squid chromium:chromium kubectl:kubernetes-client"
lab_needs="$compiler ip:iproute2 nft:nftables iptables-nft:iptables curl:curl dockerd:docker.io docker:$client runc:runc
  mmdebstrap:mmdebstrap docker-registry:docker-registry nmap:nmap xz:xz-utils openssl:openssl ping:iputils-ping
  ethtool:ethtool"
newest_needs="$compiler pkg-config:pkg-config /usr/include/seccomp.h:libseccomp-dev"
host_needs="ssh:openssh-client qemu-system-x86_64:qemu-system-x86 mkfs.ext4:e2fsprogs mmdebstrap:mmdebstrap ip:iproute2 nmap:nmap"

missing=""
for group in "$@"; do
  needs="${group}_needs"
  for pair in ${!needs}; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || [ -e "${pair%%:*}" ] || case " $missing " in
      *" ${pair##*:} "*) ;;
      *) missing="$missing ${pair##*:}" ;;
    esac
  done
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "missing:$missing (names of Debian packages). Install them, or run this as root on Debian or Ubuntu." >&2
  exit 1
fi

echo "installing:$missing"
# No service of these packages is wanted on this machine: neither a Docker
# engine that rewrites its firewall nor a registry on its port.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
apt-get update >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
# Ubuntu has some of these as snaps only.
packages=""
for package in $missing; do
  if apt-cache show "$package" >/dev/null 2>&1; then
    packages="$packages $package"
  else
    echo "there is no package $package here: tests that need it are skipped, unless you install it otherwise" >&2
  fi
done
# shellcheck disable=SC2086
apt-get install -y --no-install-recommends $packages >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
rm -f "$log"
