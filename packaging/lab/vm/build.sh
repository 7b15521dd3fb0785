#!/usr/bin/env bash
# Makes the disk of a stock Debian 13 host with Debian's Docker engine, its
# kernel and its initrd, in DIR. Nothing in it knows of the sensor; the test
# reaches it by ssh with the key that is made here.
#
# Usage: build.sh DIR
set -euo pipefail
dir=$1
mkdir -p "$dir"
made=$(sha256sum <"$0")
if [ "$(cat "$dir/made" 2>/dev/null)" = "$made" ]; then exit 0; fi

packages=linux-image-cloud-amd64,systemd,systemd-sysv,udev,dbus,iproute2,iptables,openssh-server,docker.io,docker-cli,docker-compose,nftables,ca-certificates,python3-minimal
root=$(mktemp -d "$dir/root.XXXXXX")
trap 'rm -rf "$root"' EXIT

[ -e "$dir/key" ] || ssh-keygen -q -t ed25519 -N '' -C lab -f "$dir/key"
mmdebstrap --quiet --variant=minbase --include="$packages" \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  trixie "$root"

echo host >"$root/etc/hostname"
printf '127.0.0.1 localhost host\n::1 localhost\n' >"$root/etc/hosts"
echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
install -d -m 700 "$root/root/.ssh"
install -m 600 "$dir/key.pub" "$root/root/.ssh/authorized_keys"
# The address is the operator's business: static, as on most servers.
cat >"$root/etc/systemd/network/10-lan.network" <<'EOF'
[Match]
Type=ether
Kind=!*

[Network]
Address=192.0.2.40/24
Address=2001:db8::40/64
Gateway=192.0.2.1
Gateway=2001:db8::1
EOF
systemctl --root="$root" enable --quiet systemd-networkd ssh
# One disk, no one logs in: what stock images wait for at boot is of no use.
systemctl --root="$root" mask --quiet systemd-networkd-wait-online.service getty@tty1.service
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*

cp "$root"/boot/vmlinuz-* "$dir/vmlinuz"
cp "$root"/boot/initrd.img-* "$dir/initrd"
rm -f "$dir/disk.ext4"
truncate -s 8G "$dir/disk.ext4"
mkfs.ext4 -q -F -d "$root" "$dir/disk.ext4"
echo "$made" >"$dir/made"
