#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A NETCONF client on stock ncclient: waits for one call home and prints what
it sees of it, step by step. Its log goes to standard error.

usage: client.py ADDRESS PORT USER KEY HOST_KEY.pub

The steps are the demo's: ./story says what the files below /run/demo are for.
"""
import ast
import base64
import hashlib
import logging
import os
import sys
import time

from lxml import etree
from ncclient import manager

STEP = "/run/demo/step"
OPEN = "/run/demo/open"
PATIENCE = 20  # seconds
WIDTH = 100


def step(title):
    """Begins the next step."""
    with open(STEP, encoding="ascii") as f:
        number = int(f.read().split()[0]) + 1
    with open(STEP, "w", encoding="ascii") as f:
        f.write("%d %d\n" % (number, time.time() * 1000))
    print("\n%2d. %s" % (number, title), flush=True)


def took(result):
    """Ends the step that goes on."""
    with open(STEP, encoding="ascii") as f:
        began = int(f.read().split()[1])
    print("    %.3f s: %s" % (time.time() - began / 1000, result), flush=True)


def show(lines):
    for line in lines:
        line = "    " + line
        print(line if len(line) <= WIDTH else line[:WIDTH - 3] + "...", flush=True)


class Progress(logging.Handler):
    """Reads from ncclient's log how far manager.call_home has come: it does
    four steps in one call, and has no other hook."""

    def __init__(self, host_key):
        super().__init__()
        self.host_key = host_key

    def emit(self, record):
        message = record.getMessage()
        if "Callhome connection initiated" in message:
            peer = ast.literal_eval(message.partition("host ")[2])
            took("the client has a connection from %s:%d" % peer)
            step("The client checks the device's host key: is it the one that it knows?")
        elif "Trying key" in message:
            took("yes, " + self.host_key)
            step("The client logs in with its user's key.")
        elif "Authentication (publickey) successful" in message:
            took("logged in")
            step("NETCONF: each end says hello. The device's capabilities:")


def pretty(xml):
    tree = etree.fromstring(xml.encode())
    for element in tree.iter():
        if element.text and not element.text.strip():
            element.text = None
    etree.cleanup_namespaces(tree)
    etree.indent(tree)
    return etree.tostring(tree, encoding="unicode")


def main():
    if len(sys.argv) != 6:
        sys.exit("usage: client.py ADDRESS PORT USER KEY HOST_KEY.pub")
    address, port, user, key, host_key = sys.argv[1:]
    with open(host_key, encoding="ascii") as f:
        kind, pinned = f.read().split()[:2]
    digest = hashlib.sha256(base64.b64decode(pinned)).digest()
    fingerprint = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message).120r")
    logging.getLogger().addHandler(Progress(kind + " " + fingerprint))
    # Without hostkey_verify ncclient would not look at the key.
    device = manager.call_home(
        host=address, port=int(port), username=user, key_filename=key,
        hostkey_verify=True, hostkey_b64=pinned,
        allow_agent=False, look_for_keys=False, timeout=PATIENCE)
    capabilities = list(device.server_capabilities)
    show(capabilities)
    took("session %s, %d capabilities" % (device.session_id, len(capabilities)))

    step("NETCONF: get-config. The device's running configuration:")
    reply = device.get_config("running")
    show(pretty(reply.data_xml).splitlines())
    took("a reply of %d bytes" % len(reply.xml))

    with open(OPEN, "w", encoding="ascii"):
        pass
    deadline = time.monotonic() + PATIENCE
    while os.path.exists(OPEN):
        if time.monotonic() > deadline:
            sys.exit("%s is still there after %d s" % (OPEN, PATIENCE))
        time.sleep(0.02)

    step("NETCONF: close-session.")
    if not device.close_session().ok:
        sys.exit("close-session was refused")
    took("the device agrees")


try:
    main()
except Exception as e:  # pylint: disable=broad-except
    sys.exit("%s: %s" % (type(e).__name__, e))
