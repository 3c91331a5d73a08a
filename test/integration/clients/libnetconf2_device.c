// SPDX-License-Identifier: Apache-2.0
//
// libnetconf2_device is a device none of which is ours: a NETCONF server on
// stock libnetconf2, whose own SSH server (libssh) calls home, and calls again
// when the connection has ended. It knows ietf-system, and its running
// configuration is /system/location. It runs until it is ended.
//
// usage: libnetconf2_device YANGDIR HOST PORT HOSTKEY USER PUBKEY LOCATION
//
// HOSTKEY is a private key file; USER is let in with the key of PUBKEY.

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libyang/libyang.h>
#include <nc_server.h>

enum {
	POLL_MS = 100,
};

static const char client[] = "nms", endpoint[] = "first";
static const char *location;
static struct nc_pollsession *sessions;

static void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "libnetconf2_device: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}

// host_key tells the library where the host key is. The library frees the path.
static int host_key(const char *name, void *file, char **path, char **data, NC_SSH_KEY_TYPE *type)
{
	(void)name;
	(void)data;
	(void)type;
	*path = strdup(file);
	return !*path;
}

// configuration answers get and get-config, whatever the filter.
static struct nc_server_reply *configuration(struct lyd_node *rpc)
{
	struct lyd_node *answer = NULL, *data = NULL;
	const struct ly_ctx *ctx = LYD_CTX(rpc);

	if (lyd_new_path(NULL, ctx, "/ietf-system:system/location", location, 0, &data) ||
	    lyd_dup_single(rpc, NULL, 0, &answer) ||
	    lyd_new_any(answer, NULL, "data", data, 1, LYD_ANYDATA_DATATREE, 1, NULL))
		fail("cannot make a reply");
	return nc_server_reply_data(answer, NC_WD_UNKNOWN, NC_PARAMTYPE_FREE);
}

// answer is asked for what the library does not do itself.
static struct nc_server_reply *answer(struct lyd_node *rpc, struct nc_session *session)
{
	(void)session;
	if (!strcmp(LYD_NAME(rpc), "get") || !strcmp(LYD_NAME(rpc), "get-config"))
		return configuration(rpc);
	return nc_server_reply_err(nc_err(LYD_CTX(rpc), NC_ERR_OP_NOT_SUPPORTED, NC_ERR_TYPE_PROT));
}

// established takes the session of a call home; the thread is the library's.
static int established(const char *name, struct nc_session *session)
{
	printf("session %u with %s as %s\n", nc_session_get_id(session), name, nc_session_get_username(session));
	fflush(stdout);
	return nc_ps_add_session(sessions, session);
}

int main(int argc, char **argv)
{
	static const char *modules[] = {"ietf-netconf", "ietf-netconf-monitoring", "ietf-system"};
	struct ly_ctx *ctx;
	struct nc_session *session;
	size_t i;
	int happened;

	if (argc != 8)
		fail("usage: libnetconf2_device YANGDIR HOST PORT HOSTKEY USER PUBKEY LOCATION");
	location = argv[7];
	if (ly_ctx_new(argv[1], 0, &ctx))
		fail("cannot read %s", argv[1]);
	for (i = 0; i < sizeof modules / sizeof *modules; i++)
		if (!ly_ctx_load_module(ctx, modules[i], NULL, NULL))
			fail("cannot load %s", modules[i]);
	nc_verbosity(NC_VERB_VERBOSE);
	sessions = nc_ps_new();
	if (!sessions || nc_server_init(ctx))
		fail("cannot be a server");
	nc_set_global_rpc_clb(answer);
	nc_server_ssh_set_hostkey_clb(host_key, argv[4], NULL);
	if (nc_server_ssh_add_authkey_path(argv[6], argv[5]))
		fail("cannot use the key of %s", argv[6]);
	if (nc_server_ch_add_client(client) || nc_server_ch_client_set_conn_type(client, NC_CH_PERSIST) ||
	    nc_server_ch_client_add_endpt(client, endpoint, NC_TI_LIBSSH) ||
	    nc_server_ch_client_endpt_set_address(client, endpoint, argv[2]) ||
	    nc_server_ch_client_endpt_set_port(client, endpoint, atoi(argv[3])) ||
	    nc_server_ssh_ch_client_endpt_add_hostkey(client, endpoint, "default", -1) ||
	    nc_server_ssh_ch_client_endpt_set_auth_methods(client, endpoint, NC_SSH_AUTH_PUBLICKEY) ||
	    nc_connect_ch_client_dispatch(client, established))
		fail("cannot call %s port %s", argv[2], argv[3]);

	for (;;) {
		happened = nc_ps_poll(sessions, POLL_MS, &session);
		if (happened & NC_PSPOLL_SSH_CHANNEL) {
			if (nc_ps_accept_ssh_channel(sessions, &session) == NC_MSG_HELLO)
				established(client, session);
		} else if (happened & NC_PSPOLL_SESSION_TERM) {
			nc_ps_del_session(sessions, session);
			nc_session_free(session, NULL);
		}
	}
}
