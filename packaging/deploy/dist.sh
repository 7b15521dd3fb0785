#!/usr/bin/env bash
# Builds the image and writes the deployable archive, which is also what a server
# takes as firmware.
#
# Usage: dist.sh REVISION CONTEXT CACHE PROGRAMS LIMIT ARCHIVE    see build.sh
set -euo pipefail
revision=$1 context=$2 cache=$3 programs=$4 limit=$5 archive=$6
here=$(cd "$(dirname "$0")" && pwd)

"$here/../image/build.sh" "$revision" "$context" "$cache" "$programs" "$limit"

mkdir -p "$(dirname "$archive")"
tree=$(mktemp -d "$(dirname "$archive")/.tree.XXXXXX")
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/conf"
docker save --output "$tree/firmware.img" "honeysens/sensorx86:$revision"
for file in docker-compose.yml docker-compose.bridge.yml docker-compose.split.yml metadata.xml .env README.md MIGRATION.md; do
  sed "s/@REVISION@/$revision/g" "$here/$file" >"$tree/$file"
done
chmod 644 "$tree"/* "$tree/.env"
chmod 755 "$tree/conf"

# The server looks for members by their whole names: none may begin with "./".
tar --create --directory "$tree" --format=ustar --owner=0 --group=0 --numeric-owner \
  firmware.img metadata.xml docker-compose.yml docker-compose.bridge.yml docker-compose.split.yml conf .env README.md MIGRATION.md | gzip >"$archive.part"
mv "$archive.part" "$archive"
echo "$archive: $(($(stat -c %s "$archive") / 1000000)) MB"
