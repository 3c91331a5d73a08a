# SPDX-License-Identifier: Apache-2.0
"""The Python client on a command line, for the tests. ask.c says and prints the
same.

usage: ask.py SOCKET COMMAND WORD... [then COMMAND WORD...]...

The commands are made on one connection, one after the other; "connect SOCKET"
ends it and makes another. What comes back is
printed as NAME=VALUE, a line each, with control characters and backslashes as
\\xNN; a line "--=" ends each command. Exit status 1: one of them failed.
ASK_TIMEOUT_MS bounds each call; ASK_INTERRUPTED lets signals interrupt them.
"""
import os
import signal
import sys

import callhome


def say(name, value):
    """Prints one line."""
    if isinstance(value, bool):
        value = int(value)
    data = os.fsencode(str(value))
    text = b"".join(b"\\x%02x" % c if c < 0x20 or c in (0x7f, 0x5c) else bytes([c]) for c in data)
    sys.stdout.buffer.write(name.encode() + b"=" + text + b"\n")
    sys.stdout.buffer.flush()


def failed(e):
    """Prints an Error."""
    say("error", e.name)
    say("code", e.code)
    say("rpc", e.rpc)
    say("stage", e.stage)
    say("address", e.address)
    say("reason", e.reason)
    say("retry", e.retry)
    say("failed-session", e.session)
    say("message", e)
    return 1


def say_session(s):
    """Prints a session."""
    for name in ("session", "port", "pid"):
        say(name, s.get(name, 0))
    for name in ("state", "host", "opaque", "remote", "local", "via", "user", "method", "key", "stage", "end", "cause"):
        say(name, s.get(name, ""))
    say("graceful", s.get("graceful", False))
    say("stats", "stats" in s)
    say("bytes-received", s.get("stats", {}).get("bytes-received", 0))
    say("of-client", s.get("client", ""))
    say("of-endpoint", s.get("endpoint", ""))


def call(m, host, port, wait, opaque=None):
    """Makes a call home."""
    rest = {} if wait == "default" else {"wait": wait}
    rest["port"] = int(port) or None
    # An argument that is no text comes with surrogates; fsencode undoes that.
    # Text and bytes must both do.
    if opaque is not None and len(opaque) % 2:
        opaque = os.fsencode(opaque)
    if opaque is None:
        s = m.netconf_ssh_call_home(host, **rest)
    else:
        s = m.netconf_ssh_call_home_opaque(host, opaque, **rest)
    if wait == "default":
        say("ok", 1)
    else:
        say("session", s["session"])


def handover(m, host, port, opaque=None):
    """Hands standard input over."""
    rest = {"port": int(port)} if int(port) else {}
    say("session", m.handover(0, host, opaque=opaque, **rest)["session"])


def sessions(m):
    """Prints the numbers of all sessions."""
    found = m.get_user_sessions()
    say("count", len(found))
    for s in found:
        say("id", s["session"])


def status(m):
    """Prints the manager's status."""
    st = m.call_home_status()
    for name in ("pid", "started", "sessions", "calls", "failed", "since"):
        say(name, st[name])
    say("clients", st["configuration"]["clients"])
    say("connected", sum(c["state"] in ("authenticated", "serving") for c in st["clients"]))
    say("applied", "applied" in st["configuration"])
    say("config-error", st["configuration"].get("error", ""))


def clients(m):
    """Prints the clients of the configuration."""
    found = m.get_clients()
    say("count", len(found))
    for c in found:
        say("client", c["client"])
        say("client-state", c["state"])
        say("client-endpoint", c.get("endpoint", ""))
        say("client-session", c.get("session", 0))
        say("periodic", c.get("periodic", False))
        for name in ("attempts", "attempts-left", "failures", "connections"):
            say(name, c[name])
        say("next-attempt", "next-attempt" in c)
        error = c.get("last-error", {})
        say("last-stage", error.get("stage", ""))
        say("last-end", error.get("end", ""))
        say("last-error", error.get("message", ""))


def events(m, n):
    """Prints n events."""
    with m.events(timeout=m.timeout) as stream:
        say("subscribed", 1)
        for _ in range(int(n)):
            e = next(stream)
            say("event", e["event"])
            say("time", e["time"])
            say("words", e.get("words", ""))
            say("outage", e.get("outage-ns", 0))
            say_session(e["session"])
            say("about", e.get("client", {}).get("client", ""))


def done(answer):
    """Prints that a call without a result succeeded."""
    if answer is not None and not isinstance(answer, dict):
        raise AssertionError("answered %r" % answer)
    say("ok", 1)


COMMANDS = {
    "call": call,
    "handover": handover,
    "sessions": sessions,
    "session": lambda m, n: say_session(m.get_user_session(int(n))),
    "kill": lambda m, n: done(m.kill_user_session(int(n))),
    "status": status,
    "clients": clients,
    "events": events,
    "reload": lambda m: done(m.reload_config()),
    "call-client": lambda m, client: done(dict.fromkeys([m.call_client(client, wait="ssh")["client"]])),
    "restart": lambda m, *client: done(dict.fromkeys(m.restart_call_home(*client))),
    "reopen": lambda m: done(m.reopen_logs()),
    "stop": lambda m: done(m.stop()),
    "wait_start": lambda m: done(m.wait_start()),
}


def main():
    """Runs the commands; returns the exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if "ASK_INTERRUPTED" in os.environ:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    timeout = callhome.DEFAULT_TIMEOUT
    if "ASK_TIMEOUT_MS" in os.environ:
        timeout = int(os.environ["ASK_TIMEOUT_MS"]) / 1000 or None
    words, bad, m = sys.argv[2:], 0, None
    try:
        m = callhome.Manager(sys.argv[1], timeout)
    except callhome.Error as e:
        return failed(e)
    while words:
        end = words.index("then") if "then" in words else len(words)
        command, words = words[:end], words[end + 1:]
        try:
            if command[0] == "connect":
                m.close()
                m = callhome.Manager(command[1], timeout)
                done(None)
            else:
                COMMANDS[command[0]](m, *command[1:])
        except callhome.Error as e:
            bad = failed(e)
        say("--", "")
    m.close()
    return bad


if __name__ == "__main__":
    STATUS = main()
    # An interpreter that ends has no handlers any more.
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.exit(STATUS)
