#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A management station on stock ncclient: takes N call homes on one listener,
logs in to each and keeps the session open. It prints "ready PORT", and "held"
when it has all. It ends with its standard input.

usage: ncclient_station.py N USER KEY
"""
import socket
import sys

from ncclient import manager


def main():
    n, user, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(n)
    print("ready %d" % listener.getsockname()[1], flush=True)
    held = []
    for _ in range(n):
        sock, _ = listener.accept()
        # What manager.call_home does with an accepted socket.
        held.append(manager.connect_ssh(
            host="127.0.0.1", sock=sock, username=user, key_filename=key,
            hostkey_verify=False, allow_agent=False, look_for_keys=False, timeout=60))
    print("held", flush=True)
    sys.stdin.read()


main()
