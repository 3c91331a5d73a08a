#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A NETCONF client on stock ncclient that knows nothing of call home: it
connects to a host, and prints a line for each step of the session: login,
hello, get-config, close-session. The exit status is 0 only if every step was
done.

usage: ncclient_connect.py HOST PORT USER KEY HOST_KEY.pub
"""
import sys

from ncclient import manager


def step(text):
    print(text, flush=True)


def main():
    if len(sys.argv) != 6:
        sys.exit("usage: ncclient_connect.py HOST PORT USER KEY HOST_KEY.pub")
    host, port, user, key, host_key = sys.argv[1:]
    with open(host_key, encoding="ascii") as f:
        pinned = f.read().split()[1]
    session = manager.connect(
        host=host, port=int(port), username=user, key_filename=key,
        hostkey_verify=True, hostkey_b64=pinned,
        allow_agent=False, look_for_keys=False, timeout=20)
    step("login: as %s" % session._session.transport.get_username())  # pylint: disable=protected-access
    step("hello: session %s, %d capabilities" % (
        session.session_id, len(list(session.server_capabilities))))
    step("get-config: %d bytes" % len(str(session.get_config("running"))))
    if not session.close_session().ok:
        sys.exit("close-session: refused")
    step("close-session: done")


try:
    main()
except Exception as e:  # pylint: disable=broad-except
    sys.exit("%s: %s" % (type(e).__name__, e))
