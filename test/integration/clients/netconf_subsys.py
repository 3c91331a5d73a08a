#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for ConfD's netconf-subsys: sshd starts it as the netconf subsystem, and
it connects the session to the NETCONF server. Its first line names the user and the
client's address, as the header of ConfD's transport without SSH does:

    [USER;ADDRESS;ssh;UID;GID;;HOME;GROUPS;]

usage: netconf_subsys.py SOCKET

SOCKET is a Unix socket, in place of ConfD's IPC port.
"""
import grp
import os
import pwd
import select
import socket
import sys


def header():
    user = pwd.getpwuid(os.getuid())
    groups = ",".join(grp.getgrgid(g).gr_name for g in os.getgroups())
    address = os.environ["SSH_CONNECTION"].split()[0]
    return "[%s;%s;ssh;%d;%d;;%s;%s;]\n" % (user.pw_name, address, user.pw_uid, user.pw_gid, user.pw_dir, groups)


def main():
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(sys.argv[1])
        server.sendall(header().encode())
        while True:
            ready, _, _ = select.select([0, server], [], [])
            if server in ready:
                data = server.recv(65536)
                if not data:
                    return
                os.write(1, data)
            if 0 in ready:
                data = os.read(0, 65536)
                if not data:
                    return
                server.sendall(data)


main()
