#!/usr/bin/python3
"""A small honeypot for the lab: it greets like an SSH server on port 2222,
writes down what a client says, and reports as the plug-ins in the field do.

For each event a REQ socket of its own is opened, one JSON object is sent, and
the reply is waited for, however long that takes. One of its details has the key
"data:" instead of "data", as cowrie's plug-in writes it.
"""
import base64
import json
import os
import signal
import socket
import socketserver
import sys
import threading
import time

import zmq

PORT = 2222
BANNER = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"
READ_LIMIT = 4096
CONNECTION_SECONDS = 30
IDLE_SECONDS = 3

COLLECTOR = "tcp://%s:%s"


def address():
    """The collector's address, as the sensor names it in the environment."""
    host = os.environ["COLLECTOR_HOST"]
    if ":" in host:
        host = "[%s]" % host
    return COLLECTOR % (host, os.environ["COLLECTOR_PORT"])


def report(event):
    """Sends one event and waits for the reply."""
    request = zmq.Context.instance().socket(zmq.REQ)
    if ":" in os.environ["COLLECTOR_HOST"]:
        request.setsockopt(zmq.IPV6, 1)
    request.connect(address())
    request.send_string(json.dumps(event))
    reply = request.recv_string()
    request.close()
    print("reported %s: %s" % (event["source"], reply), flush=True)


def make_event(source, started, lines, payload):
    """An event as the server wants it, but for the key of its last detail."""
    details = [{"timestamp": started, "type": 0, "data": "Connection from %s" % source}]
    for moment, line in lines:
        details.append({"timestamp": moment, "type": 1, "data": line})
    details.append({"timestamp": int(time.time()), "type": 0, "data:": "Connection closed"})
    packet = {
        "timestamp": started,
        "protocol": 1,
        "port": PORT,
        "payload": base64.b64encode(payload[:189]).decode() if payload else None,
        "headers": [{"flags": 2}],
    }
    return {
        "timestamp": started,
        "service": 1,
        "source": source,
        "summary": "SSH",
        "details": details,
        "packets": [packet],
    }


class Handler(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self):
        source = self.client_address[0].removeprefix("::ffff:").split("%")[0]
        started = int(time.time())
        payload = self.listen()
        lines = [
            (int(time.time()), text[:200])
            for text in payload.decode("utf-8", "replace").splitlines()[:20]
            if text.strip()
        ]
        report(make_event(source, started, lines, payload))

    def listen(self):
        """Says the banner and returns what the client says."""
        payload, end = b"", time.monotonic() + CONNECTION_SECONDS
        try:
            self.request.sendall(BANNER)
            self.request.settimeout(IDLE_SECONDS)
            while len(payload) < READ_LIMIT and time.monotonic() < end:
                chunk = self.request.recv(READ_LIMIT - len(payload))
                if not chunk:
                    break
                payload += chunk
        except OSError:
            pass
        self.request.close()
        return payload


class Server(socketserver.ThreadingTCPServer):
    """Listens on every address, IPv4 and IPv6."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def main():
    server = Server(("::", PORT), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("listening on port %d, collector %s" % (PORT, address()), flush=True)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
