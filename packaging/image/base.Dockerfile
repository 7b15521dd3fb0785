# The base of the sensor's image, where an image registry can be reached.
FROM debian:trixie-slim

COPY packages setup.sh /tmp/setup/
RUN sh /tmp/setup/setup.sh /tmp/setup/packages && rm -r /tmp/setup
