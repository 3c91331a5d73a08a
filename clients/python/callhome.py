# SPDX-License-Identifier: Apache-2.0
"""Ask callhome-mgr for NETCONF SSH call homes (RFC 8071).

    import callhome

    with callhome.Manager() as m:
        session = m.netconf_ssh_call_home("nms.example.net", wait="netconf")
        print(session["session"], session["user"])

The methods are named as ConfD's MAAPI names them; docs/api.md says what they
mean, who may call them, and what the fields of the answers hold. Answers are
the manager's own, as dictionaries. What fails raises Error.

Python 3.6 or later, standard library only.
"""
import array
import contextlib
import json
import socket
import threading
import time

__all__ = [
    "DEFAULT_SOCKET", "DEFAULT_PORT", "DEFAULT_TIMEOUT", "Error", "Events", "Manager",
    "ERR_NAME", "ERR_UNAVAILABLE", "ERR_HANDOVER", "ERR_SSH", "ERR_AUTH", "ERR_SUBSYSTEM", "ERR_NOEXISTS",
    "ERR_ACCESS_DENIED", "ERR_BADTYPE", "ERR_OS", "ERR_BUSY", "ERR_SHUTDOWN", "ERR_BAD_CONFIG",
    "ERR_NOMANAGER", "ERR_CLOSED", "ERR_TIMEOUT", "ERR_PROTOCOL",
]
__version__ = "0.1.0"

DEFAULT_SOCKET = "/run/callhome/mgr.sock"
DEFAULT_PORT = 4334
DEFAULT_TIMEOUT = 120  # seconds

# Why a call failed. 1 to 99 are the manager's words, the rest is our own.
ERR_NAME = 1  # the name does not resolve
ERR_UNAVAILABLE = 2  # no address answered
ERR_HANDOVER = 3  # sshd did not take the socket
ERR_SSH = 4  # no key exchange
ERR_AUTH = 5  # no login
ERR_SUBSYSTEM = 6  # no netconf subsystem
ERR_NOEXISTS = 7  # no such session
ERR_ACCESS_DENIED = 8  # this user may not
ERR_BADTYPE = 9  # a parameter is wrong
ERR_OS = 10  # the operating system failed, there or here
ERR_BUSY = 11  # a limit is reached
ERR_SHUTDOWN = 12  # the manager is stopping
ERR_BAD_CONFIG = 13  # a configuration was refused, the former one stays
ERR_NOMANAGER = 101  # no manager listens at the socket
ERR_CLOSED = 102  # the manager closed the connection
ERR_TIMEOUT = 103  # no answer in time; what was asked for may go on
ERR_PROTOCOL = 104  # client and manager do not understand each other

_NAMES = {
    ERR_NAME: "NAME", ERR_UNAVAILABLE: "UNAVAILABLE", ERR_HANDOVER: "HANDOVER", ERR_SSH: "SSH", ERR_AUTH: "AUTH",
    ERR_SUBSYSTEM: "SUBSYSTEM", ERR_NOEXISTS: "NOEXISTS", ERR_ACCESS_DENIED: "ACCESS_DENIED", ERR_BADTYPE: "BADTYPE",
    ERR_OS: "OS", ERR_BUSY: "BUSY", ERR_SHUTDOWN: "SHUTDOWN", ERR_BAD_CONFIG: "BAD_CONFIG", ERR_NOMANAGER: "NOMANAGER", ERR_CLOSED: "CLOSED",
    ERR_TIMEOUT: "TIMEOUT", ERR_PROTOCOL: "PROTOCOL",
}

_MAX_REQUEST = 64 << 10  # bytes; what the manager takes
_MAX_ANSWER = 64 << 20  # bytes: thousands of sessions
_INVALID_PARAMS = -32602  # JSON-RPC's word for ERR_BADTYPE


class Error(Exception):
    """A call failed. str() of it is one line for people.

    code     one of the ERR_ numbers
    name     its name, as "CALLHOME_ERR_AUTH"
    message  the line for people
    stage    how far the call home had come: "name", "tcp", "handover", "ssh",
             "authentication", "subsystem" or "session"; "" where it was none
    address  the one that was tried, or ""
    reason   the operating system's or sshd's own words, or ""
    retry    True where a later try can end otherwise
    session  the number of the session that failed, or 0
    rpc      the code on the wire, or 0 where none came
    """

    def __init__(self, code, message, stage="", address="", reason="", retry=False, session=0, rpc=0):
        super().__init__(message)
        self.code = code
        self.name = "CALLHOME_ERR_" + _NAMES.get(code, "UNKNOWN")
        self.message = message
        self.stage = stage
        self.address = address
        self.reason = reason
        self.retry = retry
        self.session = session
        self.rpc = rpc


class Manager:
    """A connection to callhome-mgr. Threads may share one; they take turns.

    A call that found no answer, or one that it did not understand, closes the
    connection, as a late answer would be taken for that of the next call: make
    another Manager then.
    """

    def __init__(self, path=DEFAULT_SOCKET, timeout=DEFAULT_TIMEOUT):
        """Connects to the manager at path. timeout is how many seconds each
        call may take; None: for ever."""
        self.path = path
        self.timeout = timeout
        self._turn = threading.Lock()
        self._line = _Line(path, _deadline(timeout))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the connection. Call homes and sessions go on."""
        self._line.close()

    def netconf_ssh_call_home(self, host, port=None, wait="tcp"):
        """Calls the NETCONF client at host (a name or an address; port None:
        the one in host, as "nms:830", or 4334) and returns the session when the
        call has come as far as wait: "none" (accepted), "tcp" (connected, and
        sshd has sent its first byte), "ssh" (logged in) or "netconf" (the
        subsystem was started)."""
        return self._call("netconf_ssh_call_home", {"host": host, "port": port, "wait": wait})

    def netconf_ssh_call_home_opaque(self, host, opaque, port=None, wait="tcp"):
        """Is netconf_ssh_call_home with data for the log and the session's
        environment: str, or bytes that are UTF-8. JSON carries no others:
        encode those (base64, percent)."""
        return self._call("netconf_ssh_call_home_opaque",
                          {"host": host, "port": port, "opaque": opaque, "wait": wait})

    def call_client(self, client, wait="tcp"):
        """Calls that client of the configuration now, with its own settings,
        whether it waits, is not due or was given up, and returns the session
        when the call has come as far as wait; of a client that is connected, at
        once."""
        return self._call("netconf_ssh_call_home", {"client": client, "wait": wait})

    def handover(self, sock, host, port=DEFAULT_PORT, opaque=None):
        """Lets the manager serve sock, a TCP socket (or its descriptor) that is
        connected to the NETCONF client at host and port, and returns the
        session. The manager gets a duplicate: close sock, and write nothing to
        it."""
        return self._call("handover", {"host": host, "port": port, "opaque": opaque}, sock)

    def get_user_sessions(self):
        """Returns all sessions that have not ended, by number."""
        return self._call("get_user_sessions", member="sessions", kind=list)

    def get_user_session(self, session):
        """Returns the session of that number."""
        for s in self.get_user_sessions():
            if s.get("session") == session:
                return s
        raise Error(ERR_NOEXISTS, "there is no session %s" % session)

    def kill_user_session(self, session):
        """Ends the session of that number and returns what it was, when sshd
        and all that it started are gone."""
        return self._call("kill_user_session", {"session": session})

    def reload_config(self):
        """Lets the manager read its configuration again."""
        self._call("reload_config")

    def restart_call_home(self, client=None):
        """Calls the client of the configuration now, or all (None), where it
        waits for its next attempt or has been given up. Returns the names of
        those that are called."""
        return self._call("restart_call_home", {"client": client}, member="clients", kind=list)

    def reopen_logs(self):
        """Lets the manager open its log files again."""
        self._call("reopen_logs")

    def stop(self):
        """Ends the manager. Sessions go on."""
        self._call("stop")

    def wait_start(self):
        """Returns the manager's status as soon as it is ready."""
        return self._call("wait_start")

    def call_home_status(self):
        """Returns the manager's status."""
        return self._call("call_home_status")

    def get_clients(self):
        """Returns the NETCONF clients of the configuration, in its order: where
        each stands, what failed last, and when it is called next."""
        return self._call("call_home_status", member="clients", kind=list)

    def events(self, timeout=None):
        """Returns an Events: everything that happens to sessions and clients from now on.
        It is on a connection of its own, so calls go on beside it. timeout is
        how many seconds to wait for one event; None: for ever."""
        return Events(self.path, self.timeout, timeout)

    def _call(self, method, params=None, sock=None, member=None, kind=dict):
        """Makes one call; returns its result, or that member of it."""
        request = _request(method, params)
        with self._turn, self._line.closed_on_failure():
            deadline = _deadline(self.timeout)
            self._line.send(request, sock, deadline)
            answer = self._line.receive(deadline)
            if "method" in answer:
                raise _odd(answer)
            result = _result(answer)
            if member is not None:
                result = result.get(member)
            if not isinstance(result, kind):
                raise _odd(answer)
            return result


class Events:
    """An iterator over events, each a dictionary with "time", "event",
    "session" and perhaps "words": docs/api.md lists them.

    It does not end by itself. Error with ERR_TIMEOUT says that nothing happened
    in time: go on. ERR_CLOSED says that the manager stopped, or that this
    reader was over a thousand events behind: those that follow are missed.

    The attribute last is a list of what had happened last, the newest at the
    end; nothing is missed between it and the first event.
    """

    def __init__(self, path, call_timeout, timeout):
        """Manager.events makes one."""
        self.timeout = timeout
        self._early = []
        deadline = _deadline(call_timeout)
        self._line = _Line(path, deadline)
        with self._line.closed_on_failure():
            self._line.send(_request("subscribe", None), None, deadline)
            while True:
                answer = self._line.receive(deadline)
                if "method" not in answer:
                    break
                self._early.append(_event(answer))
            self.last = _result(answer).get("events") or []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        return self

    def __next__(self):
        """Returns the next event."""
        if self._early:
            return self._early.pop(0)
        try:
            return _event(self._line.receive(_deadline(self.timeout)))
        except Error as e:
            if e.code != ERR_TIMEOUT:
                self.close()
            raise

    def fileno(self):
        """Returns the descriptor, for select. An event may be there although
        it is not readable: take events until ERR_TIMEOUT, with timeout 0."""
        return self._line.sock.fileno()

    def close(self):
        """Ends the stream."""
        self._line.close()


class _Line:
    """One message a line, both ways, on a Unix socket."""

    def __init__(self, path, deadline):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._rest = bytearray()
        try:
            while not self._connected(path, deadline):
                time.sleep(0.01)  # a queue that is full; the kernel does not report when it has space
        except (FileNotFoundError, ConnectionRefusedError) as e:
            self.sock.close()
            raise Error(ERR_NOMANAGER, "callhome-mgr does not run: no listener at %s" % path,
                        reason=e.strerror, retry=True) from e
        except PermissionError as e:
            self.sock.close()
            raise Error(ERR_ACCESS_DENIED, "calling callhome-mgr at %s: %s" % (path, e.strerror),
                        reason=e.strerror) from e
        except (socket.timeout, BlockingIOError) as e:
            self.sock.close()
            raise Error(ERR_TIMEOUT, "callhome-mgr at %s does not take the connection" % path) from e
        except (OSError, ValueError, TypeError) as e:
            self.sock.close()
            # A path that is too long, or none at all, never reaches the system.
            code = ERR_OS if getattr(e, "errno", None) else ERR_BADTYPE
            raise Error(code, "calling callhome-mgr at %s: %s" % (path, e), reason=str(e)) from e

    def _connected(self, path, deadline):
        left = _left(deadline)
        self.sock.settimeout(left)
        try:
            self.sock.connect(path)
        except BlockingIOError:
            if left == 0:
                raise
            return False
        return True

    def close(self):
        """Ends the connection."""
        self.sock.close()

    def _check_open(self):
        if self.sock.fileno() < 0:
            raise Error(ERR_CLOSED, "this connection to callhome-mgr is closed")

    @contextlib.contextmanager
    def closed_on_failure(self):
        """Closes the connection when what is done with it fails, unless the
        failure is what the manager answered."""
        try:
            yield
        except Error as e:
            if e.rpc == 0:
                self.close()
            raise
        except BaseException:  # KeyboardInterrupt: an answer may still come
            self.close()
            raise

    def send(self, data, passed, deadline):
        """Sends data, with the descriptor of passed beside its first byte. A
        manager that has closed the connection may have sent why: that is left to read."""
        self._check_open()
        ancillary = []
        if passed is not None:
            fd = passed if isinstance(passed, int) else passed.fileno()
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        try:
            while data:
                self.sock.settimeout(_left(deadline))
                data = data[self.sock.sendmsg([data], ancillary):]
                ancillary = []
        except (BrokenPipeError, ConnectionResetError):
            pass
        except (socket.timeout, BlockingIOError) as e:
            raise Error(ERR_TIMEOUT, "no answer from callhome-mgr in time") from e
        except (OSError, ValueError) as e:
            raise Error(ERR_OS, "asking callhome-mgr: %s" % e, reason=str(e)) from e

    def receive(self, deadline):
        """Returns the next message. One that came in part only is kept where
        the time is up, and gone on with by the next call."""
        self._check_open()
        searched = 0
        while True:
            end = self._rest.find(b"\n", searched)
            if end >= 0:
                line = bytes(self._rest[:end])
                del self._rest[:end + 1]
                return _message(line)
            searched = len(self._rest)
            if searched >= _MAX_ANSWER:
                raise Error(ERR_PROTOCOL, "callhome-mgr sent more than %d bytes in one line" % _MAX_ANSWER)
            try:
                self.sock.settimeout(_left(deadline))
                part = self.sock.recv(1 << 18)
            except (socket.timeout, BlockingIOError) as e:
                raise Error(ERR_TIMEOUT, "no answer from callhome-mgr in time") from e
            except ConnectionResetError:
                part = b""
            except OSError as e:
                raise Error(ERR_OS, "reading callhome-mgr's answer: %s" % e, reason=str(e)) from e
            if not part:
                raise Error(ERR_CLOSED, "callhome-mgr closed the connection")
            self._rest += part


def _deadline(timeout):
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline):
    """Returns what settimeout takes; 0 looks without waiting."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _request(method, params):
    """Returns the line of a request. It is ASCII: what is not is escaped."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method}
    if params is not None:
        message["params"] = {k: _utf8(k, v) for k, v in params.items() if v is not None}
    try:
        line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
    except (TypeError, ValueError, RecursionError) as e:
        raise Error(ERR_BADTYPE, "a parameter cannot be sent: %s" % e, reason=str(e)) from e
    if len(line) > _MAX_REQUEST:
        raise Error(ERR_BADTYPE, "the parameters are too long: a message of %d bytes" % len(line))
    return line


def _utf8(name, value):
    """Refuses text that JSON cannot carry; else a decoder would put something
    else in its place."""
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8")
        if isinstance(value, str):
            value.encode("utf-8")  # no surrogates, which stand for bytes that are no text
    except UnicodeError as e:
        raise Error(ERR_BADTYPE, "%s is not UTF-8, which JSON cannot carry" % name, reason=str(e)) from e
    return value


def _odd(thing):
    """Returns the Error for something that is not what it should be."""
    thing = thing[:160] if isinstance(thing, bytes) else thing
    return Error(ERR_PROTOCOL, "callhome-mgr's answer is not understood", reason=repr(thing)[:160])


def _whole(digits):
    if len(digits) > 20:
        raise ValueError("a number of %d digits" % len(digits))
    return int(digits)


def _refuse(word):
    raise ValueError("%s is no number" % word)


def _message(line):
    """Returns the JSON object of a line that is a JSON-RPC message."""
    try:
        message = json.loads(line.decode("utf-8"), parse_int=_whole, parse_constant=_refuse)
    except (ValueError, RecursionError) as e:
        raise _odd(line) from e
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise _odd(line)
    return message


def _event(message):
    params = message.get("params")
    if message.get("method") != "event" or not isinstance(params, dict):
        raise _odd(message)
    return params


def _result(answer):
    """Returns the result, an object, or raises what the manager says."""
    error, result, number = answer.get("error"), answer.get("result"), answer.get("id")
    # An error without a number, or number 0, is about the connection itself.
    if isinstance(error, dict) and result is None and number in (1, 0, None):
        raise _error(error)
    if error is not None or number != 1 or not isinstance(result, dict):
        raise _odd(answer)
    return result


def _error(error):
    rpc, data = error.get("code"), error.get("data")
    if not isinstance(rpc, int):
        return _odd(error)
    if not isinstance(data, dict):  # JSON-RPC's own errors have words there
        data = {"reason": data} if isinstance(data, str) else {}
    code = rpc if 1 <= rpc <= 99 else ERR_BADTYPE if rpc == _INVALID_PARAMS else ERR_PROTOCOL

    def take(name, kind, default):
        value = data.get(name)
        return value if isinstance(value, kind) else default

    return Error(code, str(error.get("message", "")), take("stage", str, ""), take("address", str, ""),
                 take("reason", str, ""), take("retry", bool, False), take("session", int, 0), rpc)
