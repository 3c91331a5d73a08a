#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A NETCONF client on stock ncclient that waits for one call home and prints
a line for each step of the session: accept, host key, login, hello,
get-config, edit-config, close-session. The exit status is 0 only if every
step was done.

usage: ncclient_callhome.py ADDRESS PORT USER KEY HOST_KEY.pub VALUE

The host key is pinned (hostkey_b64): ncclient then negotiates that key's type
only and compares the key itself, whatever address and port the device calls
from. VALUE is written to /system/location of the running datastore and read
back.
"""
import sys

from ncclient import manager

SYSTEM = "urn:ietf:params:xml:ns:yang:ietf-system"


def step(text):
    print(text, flush=True)


def main():
    if len(sys.argv) != 7:
        sys.exit("usage: ncclient_callhome.py ADDRESS PORT USER KEY HOST_KEY.pub VALUE")
    address, port, user, key, host_key, value = sys.argv[1:]
    with open(host_key, encoding="ascii") as f:
        pinned = f.read().split()[1]

    # call_home gives up after 10 s without a caller. hostkey_verify is the
    # default and said here because without it the pinned key is not compared.
    session = manager.call_home(
        host=address, port=int(port), username=user, key_filename=key,
        hostkey_verify=True, hostkey_b64=pinned,
        allow_agent=False, look_for_keys=False, timeout=20)
    transport = session._session.transport  # pylint: disable=protected-access
    step("accept: from %s" % transport.getpeername()[0])
    step("host key: %s as pinned" % transport.get_remote_server_key().get_name())
    step("login: as %s" % transport.get_username())
    step("hello: session %s, %d capabilities" % (
        session.session_id, len(list(session.server_capabilities))))

    step("get-config: %d bytes" % len(str(session.get_config("running"))))
    session.edit_config(target="running", config=(
        '<config><system xmlns="%s"><location>%s</location></system></config>' % (SYSTEM, value)))
    if value not in str(session.get_config("running")):
        sys.exit("edit-config: %s is not in the running configuration" % value)
    step("edit-config: %s is in the running configuration" % value)
    if not session.close_session().ok:
        sys.exit("close-session: refused")
    step("close-session: done")


try:
    main()
except Exception as e:  # pylint: disable=broad-except
    sys.exit("%s: %s" % (type(e).__name__, e))
