#!/bin/sh
# What the Python sensor 2.9 does in an update, step by step; it does nothing else.
# The firmware and its revision lie in /mnt/offer instead of coming from a server.
export DOCKER_HOST=unix:///var/run/docker.host.sock
trap 'exit 0' TERM
cd /mnt || exit 1

# ON_INIT: the sensor before goes, with its volumes.
if [ "${PREV_PREFIX+set}" ]; then
  docker-compose -p "$PREV_PREFIX" down -v
fi

until [ -e offer/revision ]; do
  sleep 1 & wait $!
done
revision=$(cat offer/revision)
[ "$revision" != "$(cat /revision)" ] || exec sleep infinity

dir=$(mktemp -d)
tar -xf offer/firmware.tar.gz -C "$dir"
docker load -i "$dir/firmware.img"
next=hs_1_$(date +%s)
# The file has been through yaml.dump before: only the value changes.
sed -i "s|^    image: honeysens/sensorx86:.*|    image: honeysens/sensorx86:$revision|" docker-compose.yml
current=$(cut -d= -f2 .env | tail -n 1)
printf 'COMPOSE_PROJECT_NAME=%s' "$next" >.env
PREV_PREFIX=$current docker-compose up -d
docker-compose -p "$current" down
exec sleep infinity
