// SPDX-License-Identifier: Apache-2.0
//
// libnetconf2_client is a NETCONF client on stock libnetconf2 that waits
// for one call home, or connects to a Unix socket, and prints a line for each
// step of the session: accept, host key, login, hello, get-config,
// edit-config, close-session. On a Unix socket the first three are not
// its work. The exit status is 0 only if every step was done.
//
// usage: libnetconf2_client ADDRESS PORT USER KEY KNOWN_HOSTS ALIAS VALUE
//        libnetconf2_client SOCKET VALUE
//
// The host key must stand in KNOWN_HOSTS under ALIAS: the address that a
// device calls from and its port are nothing to know it by. VALUE is written
// to /system/location of the running datastore and read back.

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libssh/libssh.h>
#include <libyang/libyang.h>
#include <nc_client.h>

enum {
	ACCEPT_MS = 20000,
	REPLY_MS = 30000, // longer than the test waits
};

struct identity {
	const char *known_hosts;
	const char *alias;
};

static void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "libnetconf2_client: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}

static void step(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
}

// check_host_key refuses every key but the one in KNOWN_HOSTS. The name and
// the port are replaced because libssh would look for "[ADDRESS]:PORT" with
// the device's ephemeral port. Nothing is ever added to a file.
static int check_host_key(const char *hostname, ssh_session session, void *priv)
{
	const struct identity *device = priv;
	unsigned int port = 22;
	enum ssh_known_hosts_e found;

	step("accept: from %s", hostname);
	if (ssh_options_set(session, SSH_OPTIONS_HOST, device->alias) ||
	    ssh_options_set(session, SSH_OPTIONS_PORT, &port) ||
	    ssh_options_set(session, SSH_OPTIONS_KNOWNHOSTS, device->known_hosts) ||
	    ssh_options_set(session, SSH_OPTIONS_GLOBAL_KNOWNHOSTS, "/dev/null"))
		return 1;
	found = ssh_session_is_known_server(session);
	if (found != SSH_KNOWN_HOSTS_OK) {
		fprintf(stderr, "libnetconf2_client: host key verification failed (%d)\n", (int)found);
		return 1;
	}
	step("host key: known as %s", device->alias);
	return 0;
}

// ask sends one RPC and returns the reply's data, or NULL for <ok/>.
static struct lyd_node *ask(struct nc_session *session, struct nc_rpc *rpc, const char *what)
{
	struct lyd_node *envelope = NULL, *data = NULL, *child;
	uint64_t id;

	if (!rpc)
		fail("%s: cannot make the rpc", what);
	if (nc_send_rpc(session, rpc, REPLY_MS, &id) != NC_MSG_RPC)
		fail("%s: cannot send", what);
	if (nc_recv_reply(session, rpc, id, REPLY_MS, &envelope, &data) != NC_MSG_REPLY)
		fail("%s: no reply", what);
	LY_LIST_FOR(lyd_child(envelope), child)
		if (!strcmp(LYD_NAME(child), "rpc-error"))
			fail("%s: the server answered with an rpc-error", what);
	lyd_free_tree(envelope);
	nc_rpc_free(rpc);
	return data;
}

static char *get_config(struct nc_session *session)
{
	struct lyd_node *data;
	char *text = NULL;

	data = ask(session, nc_rpc_getconfig(NC_DATASTORE_RUNNING, NULL, NC_WD_UNKNOWN, NC_PARAMTYPE_CONST), "get-config");
	if (!data || lyd_print_mem(&text, data, LYD_XML, LYD_PRINT_WITHSIBLINGS) || !text)
		fail("get-config: no data");
	lyd_free_all(data);
	return text;
}

static void edit_config(struct nc_session *session, const char *value)
{
	char *config;

	if (asprintf(&config, "<system xmlns=\"urn:ietf:params:xml:ns:yang:ietf-system\">"
	    "<location>%s</location></system>", value) < 0)
		fail("edit-config: out of memory");
	lyd_free_all(ask(session, nc_rpc_edit(NC_DATASTORE_RUNNING, NC_RPC_EDIT_DFLTOP_MERGE,
	    NC_RPC_EDIT_TESTOPT_UNKNOWN, NC_RPC_EDIT_ERROPT_UNKNOWN, config, NC_PARAMTYPE_CONST), "edit-config"));
	free(config);
}

static int complaints;

static void complaint(const struct nc_session *session, NC_VERB_LEVEL level, const char *message)
{
	(void)session;
	(void)level;
	fprintf(stderr, "libnetconf2_client: %s\n", message);
	complaints++;
}

// await_call waits for one call home and returns its session.
static struct nc_session *await_call(char **argv, struct identity *device)
{
	struct nc_session *session = NULL;
	char *public_key;
	int accepted;

	device->known_hosts = argv[5];
	device->alias = argv[6];
	if (asprintf(&public_key, "%s.pub", argv[4]) < 0)
		fail("out of memory");
	nc_client_ssh_ch_set_auth_hostkey_check_clb(check_host_key, device);
	nc_client_ssh_ch_set_auth_pref(NC_SSH_AUTH_INTERACTIVE, -1);
	nc_client_ssh_ch_set_auth_pref(NC_SSH_AUTH_PASSWORD, -1);
	nc_client_ssh_ch_set_auth_pref(NC_SSH_AUTH_PUBLICKEY, 1);
	if (nc_client_ssh_ch_set_username(argv[3]) || nc_client_ssh_ch_add_keypair(public_key, argv[4]))
		fail("cannot use user %s with key %s", argv[3], argv[4]);
	free(public_key);
	if (nc_client_ssh_ch_add_bind_listen(argv[1], atoi(argv[2])))
		fail("cannot listen on %s port %s", argv[1], argv[2]);
	accepted = nc_accept_callhome(ACCEPT_MS, NULL, &session);
	if (accepted != 1)
		fail("no session (%s)", accepted ? "refused" : "no device called");
	step("login: as %s", nc_session_get_username(session));
	return session;
}

int main(int argc, char **argv)
{
	struct nc_session *session;
	struct identity device;
	const char *const *capabilities;
	const char *value;
	char *text;
	int count;

	if (argc != 8 && argc != 3)
		fail("usage: libnetconf2_client ADDRESS PORT USER KEY KNOWN_HOSTS ALIAS VALUE | SOCKET VALUE");
	value = argv[argc - 1];
	nc_client_init();
	session = argc == 3 ? nc_connect_unix(argv[1], NULL) : await_call(argv, &device);
	if (!session)
		fail("no session on %s", argv[1]);
	capabilities = nc_session_get_cpblts(session);
	for (count = 0; capabilities[count]; count++)
		;
	step("hello: session %u, %d capabilities", nc_session_get_id(session), count);

	text = get_config(session);
	step("get-config: %zu bytes", strlen(text));
	free(text);
	edit_config(session, value);
	text = get_config(session);
	if (!strstr(text, value))
		fail("edit-config: %s is not in the running configuration: %s", value, text);
	free(text);
	step("edit-config: %s is in the running configuration", value);

	// nc_session_free sends <close-session> and waits for the reply. It can
	// only complain through the log.
	nc_verbosity(NC_VERB_WARNING);
	nc_set_print_clb_session(complaint);
	nc_session_free(session, NULL);
	if (complaints)
		fail("close-session: not answered with <ok/>");
	step("close-session: done");
	if (argc == 8)
		nc_client_ssh_ch_del_bind(NULL, 0);
	nc_client_destroy();
	return 0;
}
