#!/bin/sh
# Turns a Debian root file system into the sensor's: its packages, its user, and
# nothing that it does not use, whichever way the base image is made. What is
# done already is left alone.
#
# Usage: setup.sh PACKAGES-FILE
set -eu

packages=$(cat "$1")
# shellcheck disable=SC2086
if ! dpkg-query --show $packages >/dev/null 2>&1; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update
  apt-get install -y --no-install-recommends $packages
fi

if ! getent passwd sensor >/dev/null; then
  groupadd --gid 10001 sensor
  useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sensor
fi

# A third of the packages is not used: clients and shims of other container
# runtimes, character sets, documents but for the licences.
rm -rf /usr/bin/ctr /usr/bin/containerd-shim /usr/bin/containerd-shim-runc-v1 /usr/bin/containerd-stress /usr/sbin/docker-proxy
rm -rf /usr/lib/*-linux-gnu/gconv
find /usr/share/doc -depth ! -name copyright -type f -delete
find /usr/share/doc -depth -type d -empty -delete
rm -rf /usr/share/man /usr/share/info /usr/share/locale /usr/share/lintian /usr/share/bash-completion
# What only building and asking about packages takes.
rm -rf /var/lib/dpkg/info/*.symbols /var/lib/dpkg/info/*.templates /var/cache/debconf/*
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/lib/dpkg/*-old /var/log/*.log /var/log/apt
