/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a call home, waits until the NETCONF client has its session, and shows
 * what the manager knows of it.
 *
 *	cc example.c $(pkg-config --cflags --libs callhome)
 *	./a.out HOST [PORT [OPAQUE]]
 *
 * CALLHOME_MANAGER_SOCKET names another socket than the default one.
 */
#include <callhome.h>
#include <stdio.h>
#include <stdlib.h>

static int complain(const char *doing)
{
	const struct callhome_error *e = callhome_error();

	fprintf(stderr, "%s: %s (%s%s%s)\n", doing, callhome_lasterr(), callhome_errname(e->code),
		*e->stage ? ", stage " : "", e->stage);
	return e->retry ? 75 : 1; /* EX_TEMPFAIL */
}

int main(int argc, char **argv)
{
	struct callhome_session s;
	const char *opaque = argc > 3 ? argv[3] : NULL;
	int sock, id, port = argc > 2 ? atoi(argv[2]) : CALLHOME_PORT;

	if (argc < 2 || argc > 4) {
		fprintf(stderr, "usage: %s HOST [PORT [OPAQUE]]\n", argv[0]);
		return 64;
	}
	sock = callhome_connect(getenv("CALLHOME_MANAGER_SOCKET"));
	if (sock < 0)
		return complain("connecting to the manager");
	id = callhome_netconf_ssh_call_home_wait(sock, argv[1], opaque, port, CALLHOME_WAIT_NETCONF);
	if (id < 0)
		return complain("calling home");
	if (callhome_get_user_session(sock, id, &s) < 0)
		return complain("looking at the session");
	printf("session %d: %s has started the netconf subsystem from %s, round trip %.3f ms\n",
	       id, s.user, s.remote, (double)s.rtt_ns / 1e6);
	callhome_close(sock);
	return 0;
}
