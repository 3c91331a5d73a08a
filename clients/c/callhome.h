/* SPDX-License-Identifier: Apache-2.0 */
/*
 * callhome.h: ask callhome-mgr for NETCONF SSH call homes (RFC 8071) from C.
 *
 *	int sock = callhome_connect(NULL);
 *	if (sock < 0 || callhome_netconf_ssh_call_home(sock, "nms.example.net", 4334) < 0)
 *		fprintf(stderr, "%s\n", callhome_lasterr());
 *
 * The calls are named and return as ConfD's MAAPI ones do: CALLHOME_OK or a
 * number on success; CALLHOME_ERR on failure, or CALLHOME_EOF when the manager
 * is gone, and then callhome_errno, callhome_lasterr() and callhome_error()
 * tell more, each thread its own. What the methods mean and who may call them
 * is in docs/api.md.
 *
 * A socket is for one thread at a time. Nothing is kept but in the socket
 * itself: it may be passed on, and poll() on it is reliable. No call
 * raises SIGPIPE, and signals do not interrupt any. A call that found no
 * answer, or one that it did not understand, shuts its socket down, as a late
 * answer would be taken for that of the next call: close it and connect again.
 *
 * Strings are UTF-8, as JSON has nothing else. One that is not is refused with
 * CALLHOME_ERR_BADTYPE before anything is sent; who has other bytes for the
 * opaque word encodes them (base64, percent). A string that comes back and does
 * not fit its field is cut between two characters; a U+0000 in it, which C
 * cannot carry, becomes U+FFFD.
 */
#ifndef CALLHOME_H
#define CALLHOME_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CALLHOME_SOCKET "/run/callhome/mgr.sock"
#define CALLHOME_PORT 4334
#define CALLHOME_TIMEOUT_MS 120000 /* of a socket that callhome_connect() made */

#define CALLHOME_OK 0
#define CALLHOME_ERR (-1)
#define CALLHOME_EOF (-2)

/* Why a call failed. 1 to 99 are the manager's words, the rest is our own. */
enum callhome_code {
	CALLHOME_ERR_NAME = 1,          /* the name does not resolve */
	CALLHOME_ERR_UNAVAILABLE = 2,   /* no address answered */
	CALLHOME_ERR_HANDOVER = 3,      /* sshd did not take the socket */
	CALLHOME_ERR_SSH = 4,           /* no key exchange */
	CALLHOME_ERR_AUTH = 5,          /* no login */
	CALLHOME_ERR_SUBSYSTEM = 6,     /* no netconf subsystem */
	CALLHOME_ERR_NOEXISTS = 7,      /* no such session */
	CALLHOME_ERR_ACCESS_DENIED = 8, /* this user may not */
	CALLHOME_ERR_BADTYPE = 9,       /* a parameter is wrong */
	CALLHOME_ERR_OS = 10,           /* the operating system failed, there or here */
	CALLHOME_ERR_BUSY = 11,         /* a limit is reached */
	CALLHOME_ERR_SHUTDOWN = 12,     /* the manager is stopping */
	CALLHOME_ERR_BAD_CONFIG = 13,   /* a configuration was refused, the former one stays */

	CALLHOME_ERR_NOMANAGER = 101, /* no manager listens at the socket */
	CALLHOME_ERR_CLOSED = 102,    /* the manager closed the connection */
	CALLHOME_ERR_TIMEOUT = 103,   /* no answer in time; what was asked for may go on */
	CALLHOME_ERR_PROTOCOL = 104   /* client and manager do not understand each other */
};

/* How far a call home must have come before it is answered. */
enum callhome_wait {
	CALLHOME_WAIT_NONE,   /* the call was accepted */
	CALLHOME_WAIT_TCP,    /* connected, and sshd has sent its first byte: as MAAPI's calls */
	CALLHOME_WAIT_SSH,    /* the NETCONF client has logged in */
	CALLHOME_WAIT_NETCONF /* the netconf subsystem was started */
};

/* The last failure of this thread. Fields that it has no use for are "" or 0. */
struct callhome_error {
	int code;           /* enum callhome_code */
	int rpc;            /* the code on the wire, 0: none came; JSON-RPC's own are negative */
	int retry;          /* 1: a later try can end otherwise */
	int session;        /* that failed */
	char stage[20];     /* name, tcp, handover, ssh, authentication, subsystem, session */
	char address[320];  /* that was tried */
	char reason[1024];  /* in the words of the operating system or sshd */
	char message[1024]; /* all in one line: callhome_lasterr() */
};

/* A session as the manager knows it; docs/api.md describes the fields. */
struct callhome_session {
	int session;
	int port;
	int pid; /* of sshd */
	int has_stats;
	char state[20];
	char host[256];
	char opaque[1025];
	char remote[80];
	char local[80];
	char since[40]; /* RFC 3339 */
	char ended[40];
	char via[12];
	char user[256];
	char method[64];
	char key[160];
	char cert[512];
	char stage[20];
	char end[32];   /* how it ended, one word of docs/api.md */
	int graceful;   /* it was closed on purpose */
	char cause[1024];
	int64_t bytes_sent, bytes_received, retransmits, unacked, rtt_ns, last_data_ns;
	char client[256]; /* the configured client that it belongs to; "": a call on request */
	char endpoint[256];
};

struct callhome_status {
	int pid;
	int started; /* 1: the sessions of a former manager are restored */
	int sessions;
	int64_t calls, failed;
	char version[64];
	char since[40];
	int clients;   /* that the configuration has */
	int connected; /* of those, with a login */
	char config_applied[40]; /* when; "": none is in force */
	char config_error[1024]; /* why the one read last was refused; "": it was not */
};

/* A NETCONF client of the configuration; docs/api.md describes the fields. */
struct callhome_client {
	char client[256];
	char state[20];
	char since[40];
	char endpoint[256];
	char address[80];
	char user[256];
	char next_attempt[40]; /* RFC 3339; "": none is to come */
	char error_time[40];   /* of the last failure; "": there was none */
	char error_stage[20];
	char error_end[32];
	char error[1024];
	int session;
	int periodic;
	int attempts, attempts_left, failures;
	int64_t connections;
};

struct callhome_event {
	char time[40];
	char event[32];
	char words[1024]; /* sshd's own, where the event is one of its lines */
	int64_t outage_ns; /* with "recovered" */
	struct callhome_session session; /* session 0: of none */
	struct callhome_client client;   /* client "": of none */
};

/*
 * callhome_connect connects to the manager at path (NULL: CALLHOME_SOCKET) and
 * returns a socket, close-on-exec, for callhome_close().
 */
int callhome_connect(const char *path);
int callhome_close(int sock);

/* How long each later call on sock may take, in milliseconds; 0: for ever. */
int callhome_set_timeout(int sock, int milliseconds);

/*
 * Call a NETCONF client: host is a name or an address, port 0 stands for the
 * one in host ("nms:830") or CALLHOME_PORT, opaque (NULL: none) is data for the
 * log and the session's environment. The first two answer CALLHOME_OK once sshd
 * has the socket; the third answers the session's number when the call has come
 * as far as wait.
 */
int callhome_netconf_ssh_call_home(int sock, const char *host, int port);
int callhome_netconf_ssh_call_home_opaque(int sock, const char *host, const char *opaque, int port);
int callhome_netconf_ssh_call_home_wait(int sock, const char *host, const char *opaque, int port, enum callhome_wait wait);

/*
 * Call a client of the configuration now, with its own settings, whether it
 * waits, is not due or was given up. Returns the session's number when the call
 * has come as far as wait; of a client that is connected, at once.
 */
int callhome_call_client(int sock, const char *client, enum callhome_wait wait);

/*
 * Let the manager serve fd, a TCP socket that is connected to a NETCONF client.
 * fd is borrowed: the manager gets a duplicate, so close it, and write nothing
 * to it. Returns the session's number.
 */
int callhome_handover(int sock, int fd, const char *host, const char *opaque, int port);

/*
 * Put the numbers of the sessions, ascending, into res, at most n of them.
 * Returns how many there are, which may be more than n; n may be 0.
 */
int callhome_get_user_sessions(int sock, int res[], int n);

/* One session; CALLHOME_ERR_NOEXISTS where there is none of that number. */
int callhome_get_user_session(int sock, int usid, struct callhome_session *out);

/* End a session; answered when sshd and all that it started are gone. */
int callhome_kill_user_session(int sock, int usid);

int callhome_reload_config(int sock);

/*
 * Call the client of the configuration now, or all (NULL), where it waits for
 * its next attempt or has been given up. CALLHOME_ERR_NOEXISTS where there is
 * none of that name.
 */
int callhome_restart_call_home(int sock, const char *client);
int callhome_reopen_logs(int sock);
int callhome_stop(int sock);       /* end the manager; sessions go on */
int callhome_wait_start(int sock); /* answered when the manager is ready */
int callhome_status(int sock, struct callhome_status *out);

/*
 * Put the NETCONF clients of the configuration, in its order, into res, at most
 * n of them. Returns how many there are, which may be more than n; n may be 0.
 */
int callhome_get_clients(int sock, struct callhome_client res[], int n);

/*
 * After callhome_subscribe() sock carries every event from then on, for
 * callhome_read_event() and for no other call. (Earlier events, which
 * the manager's answer contains, are skipped.) CALLHOME_ERR_TIMEOUT there
 * means that nothing happened: go on. CALLHOME_EOF means that the manager
 * stopped, or that this reader was over a thousand events behind.
 */
int callhome_subscribe(int sock);
int callhome_read_event(int sock, struct callhome_event *out);

/* What a code means, and its name ("CALLHOME_ERR_AUTH"). Never NULL. */
const char *callhome_strerror(int code);
const char *callhome_errname(int code);

/* This thread's last failure. A call that succeeds leaves it as it was. */
#define callhome_errno (callhome_error()->code)
const char *callhome_lasterr(void);
const struct callhome_error *callhome_error(void);

#ifdef __cplusplus
}
#endif
#endif
