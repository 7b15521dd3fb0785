#!/usr/bin/env bash
# Builds the image honeysens/sensorx86:REVISION from the context in CONTEXT with
# the engine that DOCKER_HOST names, and says how large it is and why; more than
# LIMIT megabytes are an error. CACHE keeps the base image, PROGRAMS holds the
# program sbom.
#
# The same context makes the same layer: files have the time SOURCE_DATE_EPOCH
# and modes that do not depend on who checked them out.
#
# Usage: build.sh REVISION CONTEXT CACHE PROGRAMS LIMIT
set -euo pipefail
revision=$1 context=$2 cache=$3 programs=$4 limit=$5
here=$(cd "$(dirname "$0")" && pwd)

base=$("$here/base.sh" "$cache")
share=$context/rootfs/usr/share/honeysens
"$programs/sbom" merge --revision "$revision" --packages "$cache/base-${base##*:}.status" --out "$share/sbom.cdx.json" "$context"/sbom/*.json
chmod -R u=rwX,go=rX "$context/rootfs"
find "$context/rootfs" -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH:-0}" {} +

# Either builder will do, the classic one of older engines and BuildKit; what
# docker says about the choice is of no use here.
docker build --quiet --network none --build-arg "BASE=$base" --tag "honeysens/sensorx86:$revision" "$context" \
  2> >(grep -v -i -e 'deprecated' -e 'buildx' -e '^ *$' >&2) >/dev/null

# An engine that is only for builds keeps one image, for the next build to start
# from; in anybody else's nothing is removed.
if [ -n "${BUILD_ENGINE:-}" ]; then
  docker images --format '{{.Repository}}:{{.Tag}}' honeysens/sensorx86 | grep -v -x "honeysens/sensorx86:$revision" |
    xargs -r docker rmi >/dev/null || true
  docker image prune --force >/dev/null
fi
"$here/size.sh" "honeysens/sensorx86:$revision" "$limit"
