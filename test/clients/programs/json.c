/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts the C client's own reader and writer of JSON to the test: it is compiled
 * into this file. json_test.go sends records and knows what must come back: an
 * operation's letter, four bytes of length (big endian), that many bytes; and
 * back: four bytes of length, that many bytes. What is read from lies in memory
 * of exactly its size, so that the sanitizer sees every byte too far.
 *
 *	v TEXT   is it one JSON value, and nothing else? "1" or "0"
 *	t TEXT   the text of a JSON string that v accepts, for a large buffer
 *	s TEXT   the same for a buffer of 8 bytes
 *	i TEXT   the number of a JSON integer
 *	w BYTES  the JSON string for these bytes, or "!"
 *	d PATH   calls the manager at PATH 200 times: how many descriptors are left
 *	e        does a failure in another thread change this one's? "1" or "0"
 */
#include "callhome.c"

#include <dirent.h>
#include <pthread.h>

static void reply(const char *p, size_t n)
{
	unsigned char len[4] = {(unsigned char)(n >> 24), (unsigned char)(n >> 16), (unsigned char)(n >> 8), (unsigned char)n};

	fwrite(len, 1, 4, stdout);
	fwrite(p, 1, n, stdout);
	fflush(stdout);
}

static int valid(struct span v)
{
	const char *end = skip_value(v.p, v.end);

	return end && skip_space(end, v.end) == v.end;
}

static void write_string(struct span v)
{
	static struct request r;
	char *s = malloc((size_t)(v.end - v.p) + 1);

	memcpy(s, v.p, (size_t)(v.end - v.p));
	s[v.end - v.p] = '\0';
	r.len = 0;
	r.bad = NULL;
	put_string(&r, s);
	free(s);
	reply(r.bad ? "!" : r.text, r.bad ? 1 : r.len);
}

static int descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void leaks(struct span v)
{
	char path[128], left[16];
	int i, before, sock;

	snprintf(path, sizeof(path), "%.*s", (int)(v.end - v.p), v.p);
	before = descriptors();
	for (i = 0; i < 200; i++) {
		sock = callhome_connect(i % 2 ? path : "/nowhere/at/all");
		if (sock >= 0) {
			callhome_get_user_sessions(sock, NULL, 0);
			callhome_close(sock);
		}
	}
	snprintf(left, sizeof(left), "%d", descriptors() - before);
	reply(left, strlen(left));
}

static void *fail_elsewhere(void *unused)
{
	callhome_connect("");
	return unused;
}

static void threads(void)
{
	pthread_t other;
	int same;

	callhome_connect("/nowhere/at/all");
	pthread_create(&other, NULL, fail_elsewhere, NULL);
	pthread_join(other, NULL);
	same = callhome_errno == CALLHOME_ERR_NOMANAGER;
	reply(same ? "1" : "0", 1);
}

int main(void)
{
	static char out[1 << 16];
	unsigned char head[5];
	struct span v;
	size_t n;
	char *data;

	while (fread(head, 1, 5, stdin) == 5) {
		n = (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
		data = malloc(n ? n : 1);
		if (fread(data, 1, n, stdin) != n)
			return 1;
		v.p = data;
		v.end = data + n;
		switch (head[0]) {
		case 'v':
			reply(valid(v) ? "1" : "0", 1);
			break;
		case 't':
			text(v, out, sizeof(out));
			reply(out, strlen(out));
			break;
		case 's':
			text(v, out, 8);
			reply(out, strlen(out));
			break;
		case 'i':
			snprintf(out, sizeof(out), "%lld", (long long)integer(v));
			reply(out, strlen(out));
			break;
		case 'w':
			write_string(v);
			break;
		case 'd':
			leaks(v);
			break;
		case 'e':
			threads();
			break;
		default:
			return 1;
		}
		free(data);
	}
	return 0;
}
