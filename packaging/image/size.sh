#!/usr/bin/env bash
# Prints the size of an image with the share of each of its parts, and fails when
# it is larger than LIMIT megabytes.
#
# Usage: size.sh IMAGE LIMIT
set -euo pipefail
image=$1 limit=$2
container=$(docker create --network none "$image" true)
trap 'docker rm "$container" >/dev/null' EXIT
docker export "$container" | tar --list --verbose --numeric-owner | awk -v image="$image" -v limit="$limit" '
  function part(path) {
    if (path ~ /^usr\/(s?bin)\/(dockerd|containerd.*|runc)$/) return "engine: dockerd, containerd, runc"
    if (path ~ /docker-compose$/) return "Docker Compose"
    if (path ~ /^usr\/bin\/manager$/) return "manager"
    if (path ~ /^usr\/bin\/nethelper$/) return "nethelper"
    if (path ~ /^opt\/cni\//) return "CNI plug-ins"
    if (path ~ /^usr\/lib\/honeysens\//) return "init, runtime, pause"
    if (path ~ /^usr\/share\/(honeysens|doc)\//) return "licences, bill of materials"
    return "other packages of Debian"
  }
  $1 ~ /^-/ { size[part($6)] += $3; total += $3 }
  END {
    printf "%s: %.0f MB (limit %d MB)\n", image, total / 1e6, limit
    for (p in size) printf "%6.1f MB %5.1f %%  %s\n", size[p] / 1e6, 100 * size[p] / total, p | "sort -rn"
    close("sort -rn")
    if (total / 1e6 > limit) { print "the image is larger than its limit: find out why, or change IMAGE_LIMIT" > "/dev/stderr"; exit 1 }
  }'
