/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C client on a command line, for the tests: see ask.py, which says and
 * prints the same.
 */
#include <callhome.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static void say(const char *name, const char *value)
{
	const unsigned char *p;

	printf("%s=", name);
	for (p = (const unsigned char *)value; *p; p++) {
		if (*p < 0x20 || *p == 0x7f || *p == '\\')
			printf("\\x%02x", *p);
		else
			putchar(*p);
	}
	putchar('\n');
	fflush(stdout);
}

static void say_number(const char *name, long long n)
{
	char digits[32];

	snprintf(digits, sizeof(digits), "%lld", n);
	say(name, digits);
}

static int failed(int got)
{
	const struct callhome_error *e = callhome_error();

	if ((got == CALLHOME_EOF) != (callhome_errno == CALLHOME_ERR_CLOSED) || got >= 0 || got < CALLHOME_EOF) {
		fprintf(stderr, "ask: returned %d with code %d\n", got, callhome_errno);
		abort();
	}
	say("error", callhome_errname(e->code));
	say_number("code", e->code);
	say_number("rpc", e->rpc);
	say("stage", e->stage);
	say("address", e->address);
	say("reason", e->reason);
	say_number("retry", e->retry);
	say_number("failed-session", e->session);
	say("message", callhome_lasterr());
	return 1;
}

static int ok(int got)
{
	if (got < 0)
		return failed(got);
	say("ok", "1");
	return 0;
}

static int numbered(int got)
{
	if (got < 0)
		return failed(got);
	say_number("session", got);
	return 0;
}

static void say_session(const struct callhome_session *s)
{
	say_number("session", s->session);
	say_number("port", s->port);
	say_number("pid", s->pid);
	say("state", s->state);
	say("host", s->host);
	say("opaque", s->opaque);
	say("remote", s->remote);
	say("local", s->local);
	say("via", s->via);
	say("user", s->user);
	say("method", s->method);
	say("key", s->key);
	say("stage", s->stage);
	say("end", s->end);
	say_number("graceful", s->graceful);
	say("cause", s->cause);
	say_number("stats", s->has_stats);
	say_number("bytes-received", s->bytes_received);
	say("of-client", s->client);
	say("of-endpoint", s->endpoint);
}

static void say_client(const struct callhome_client *c)
{
	say("client", c->client);
	say("client-state", c->state);
	say("client-endpoint", c->endpoint);
	say_number("client-session", c->session);
	say_number("periodic", c->periodic);
	say_number("attempts", c->attempts);
	say_number("attempts-left", c->attempts_left);
	say_number("failures", c->failures);
	say_number("connections", c->connections);
	say_number("next-attempt", c->next_attempt[0] != '\0');
	say("last-stage", c->error_stage);
	say("last-end", c->error_end);
	say("last-error", c->error);
}

static int call(int sock, int n, char **arg)
{
	static const char *const words[] = {"none", "tcp", "ssh", "netconf"};
	const char *opaque = n > 4 ? arg[4] : NULL;
	int port = atoi(arg[2]), wait;

	if (strcmp(arg[3], "default") == 0)
		return ok(opaque ? callhome_netconf_ssh_call_home_opaque(sock, arg[1], opaque, port)
				 : callhome_netconf_ssh_call_home(sock, arg[1], port));
	for (wait = 0; wait < 4 && strcmp(words[wait], arg[3]) != 0; wait++)
		;
	return numbered(callhome_netconf_ssh_call_home_wait(sock, arg[1], opaque, port, (enum callhome_wait)wait));
}

static int sessions(int sock)
{
	int ids[64], i, n = callhome_get_user_sessions(sock, ids, 64);

	if (n < 0)
		return failed(n);
	say_number("count", n);
	for (i = 0; i < n && i < 64; i++)
		say_number("id", ids[i]);
	return 0;
}

static int session(int sock, int id)
{
	static struct callhome_session s;
	int got = callhome_get_user_session(sock, id, &s);

	if (got < 0)
		return failed(got);
	say_session(&s);
	return 0;
}

static int status(int sock)
{
	struct callhome_status st;
	int got = callhome_status(sock, &st);

	if (got < 0)
		return failed(got);
	say_number("pid", st.pid);
	say_number("started", st.started);
	say_number("sessions", st.sessions);
	say_number("calls", st.calls);
	say_number("failed", st.failed);
	say("since", st.since);
	say_number("clients", st.clients);
	say_number("connected", st.connected);
	say_number("applied", st.config_applied[0] != '\0');
	say("config-error", st.config_error);
	return 0;
}

static int clients(int sock)
{
	static struct callhome_client all[4];
	int i, n = callhome_get_clients(sock, all, 4);

	if (n < 0)
		return failed(n);
	say_number("count", n);
	for (i = 0; i < n && i < 4; i++)
		say_client(&all[i]);
	return 0;
}

static int events(int sock, int n)
{
	static struct callhome_event e;
	int got = callhome_subscribe(sock);

	if (got < 0)
		return failed(got);
	say("subscribed", "1");
	while (n-- > 0) {
		got = callhome_read_event(sock, &e);
		if (got < 0)
			return failed(got);
		say("event", e.event);
		say("time", e.time);
		say("words", e.words);
		say_number("outage", e.outage_ns);
		say_session(&e.session);
		say("about", e.client.client);
	}
	return 0;
}

static int command(int sock, int n, char **arg)
{
	const char *name = arg[0];

	if (strcmp(name, "call") == 0 && n >= 4)
		return call(sock, n, arg);
	if (strcmp(name, "handover") == 0 && n >= 3)
		return numbered(callhome_handover(sock, 0, arg[1], n > 3 ? arg[3] : NULL, atoi(arg[2])));
	if (strcmp(name, "sessions") == 0)
		return sessions(sock);
	if (strcmp(name, "session") == 0 && n == 2)
		return session(sock, atoi(arg[1]));
	if (strcmp(name, "kill") == 0 && n == 2)
		return ok(callhome_kill_user_session(sock, atoi(arg[1])));
	if (strcmp(name, "status") == 0)
		return status(sock);
	if (strcmp(name, "clients") == 0)
		return clients(sock);
	if (strcmp(name, "events") == 0 && n == 2)
		return events(sock, atoi(arg[1]));
	if (strcmp(name, "reload") == 0)
		return ok(callhome_reload_config(sock));
	if (strcmp(name, "call-client") == 0)
		return ok(callhome_call_client(sock, arg[1], CALLHOME_WAIT_SSH) < 0 ? CALLHOME_ERR : CALLHOME_OK);
	if (strcmp(name, "restart") == 0)
		return ok(callhome_restart_call_home(sock, n > 1 ? arg[1] : NULL));
	if (strcmp(name, "reopen") == 0)
		return ok(callhome_reopen_logs(sock));
	if (strcmp(name, "stop") == 0)
		return ok(callhome_stop(sock));
	if (strcmp(name, "wait_start") == 0)
		return ok(callhome_wait_start(sock));
	fprintf(stderr, "ask: no command %s with %d words\n", name, n);
	exit(64);
}

static void nothing(int number) { (void)number; }

/* interrupt lets a signal arrive every millisecond, which interrupts calls. */
static void interrupt(void)
{
	struct itimerval each = {{0, 1000}, {0, 1000}};
	struct sigaction act;

	memset(&act, 0, sizeof(act));
	act.sa_handler = nothing;
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &each, NULL);
}

static int reconnect(const char *path, int sock)
{
	const char *timeout = getenv("ASK_TIMEOUT_MS");

	if (sock >= 0 && callhome_close(sock) < 0)
		return CALLHOME_ERR;
	sock = callhome_connect(path);
	if (sock >= 0 && timeout && callhome_set_timeout(sock, atoi(timeout)) < 0)
		abort();
	return sock;
}

int main(int argc, char **argv)
{
	int sock, status = 0, from, to;

	if (argc < 3)
		return 64;
	signal(SIGPIPE, SIG_DFL);
	if (getenv("ASK_INTERRUPTED"))
		interrupt();
	sock = reconnect(argv[1], -1);
	if (sock < 0)
		return failed(sock);
	for (from = 2; from < argc; from = to + 1) {
		for (to = from; to < argc && strcmp(argv[to], "then") != 0; to++)
			;
		if (to == from)
			return 64;
		if (strcmp(argv[from], "connect") == 0)
			status |= ok(sock = reconnect(argv[from + 1], sock));
		else
			status |= command(sock, to - from, argv + from);
		say("--", "");
	}
	return sock >= 0 && callhome_close(sock) < 0 ? failed(CALLHOME_ERR) : status;
}
