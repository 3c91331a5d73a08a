/* SPDX-License-Identifier: Apache-2.0 */
/* Ask callhome-mgr for a call home, and wait until its netconf subsystem runs. */
#include <callhome.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int sock, id;

	if (argc != 2) {
		fprintf(stderr, "usage: %s HOST\n", argv[0]);
		return 64;
	}
	sock = callhome_connect(NULL);
	if (sock < 0) {
		fprintf(stderr, "%s: %s\n", callhome_errname(callhome_errno), callhome_lasterr());
		return 1;
	}
	id = callhome_netconf_ssh_call_home_wait(sock, argv[1], "ticket 42", CALLHOME_PORT, CALLHOME_WAIT_NETCONF);
	if (id < 0)
		fprintf(stderr, "%s: %s\n", callhome_errname(callhome_errno), callhome_lasterr());
	else
		printf("session %d\n", id);
	close(sock);
	return id < 0;
}
