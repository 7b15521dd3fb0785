#!/usr/bin/env bash
# Builds the image honeysens/sensorx86:REVISION from the context in CONTEXT with
# the engine that DOCKER_HOST names. CACHE keeps the base image.
#
# Usage: build.sh REVISION CONTEXT CACHE
set -euo pipefail
revision=$1 context=$2 cache=$3
here=$(cd "$(dirname "$0")" && pwd)
public=debian:trixie-slim

if docker image inspect "$public" >/dev/null 2>&1 || docker pull --quiet "$public" >/dev/null 2>&1; then
  base=$public network=default
else
  # Everything is in the base already: the build needs no network, and the
  # engine may have none.
  base=$("$here/base.sh" "$cache") network=none
fi

# Either builder will do, the classic one of older engines and BuildKit; what
# docker says about the choice is of no use here.
docker build --quiet --network "$network" --build-arg "BASE=$base" --tag "honeysens/sensorx86:$revision" "$context" \
  2> >(grep -v -i -e 'deprecated' -e 'buildx' -e '^ *$' >&2) >/dev/null

# An engine that is only for builds keeps one image, for the next build to start
# from; in anybody else's nothing is removed.
if [ -n "${BUILD_ENGINE:-}" ]; then
  docker images --format '{{.Repository}}:{{.Tag}}' honeysens/sensorx86 | grep -v -x "honeysens/sensorx86:$revision" |
    xargs -r docker rmi >/dev/null || true
  docker image prune --force >/dev/null
fi

docker image inspect --format '{{.Size}}' "honeysens/sensorx86:$revision" |
  awk -v name="honeysens/sensorx86:$revision" '{printf "%s: %.0f MB\n", name, $1 / 1e6}'
