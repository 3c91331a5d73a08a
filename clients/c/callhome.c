/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of callhome-mgr: JSON-RPC 2.0, one message a line, on a Unix
 * stream socket (docs/api.md). callhome.h says what the calls promise. From the
 * bottom up: errors, JSON written, JSON read, the socket, one call, the methods.
 *
 * Lines from the manager are checked whole before anything is taken from them,
 * without recursion, and not a byte is read past the line that is asked for.
 */
#undef _GNU_SOURCE /* its strerror_r is another one */
#define _POSIX_C_SOURCE 200809L

#include "callhome.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_REQUEST (16 << 10) /* bytes; the manager takes 64 KiB */
#define MAX_ANSWER (64 << 20)  /* bytes: thousands of sessions */
#define CONNECT_TIME 10        /* seconds */
#define MAX_DEPTH 32           /* of arrays and objects; bits in the checker's stack */

#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define THREAD_LOCAL _Thread_local
#else
#define THREAD_LOCAL __thread
#endif

/* ------------------------------------------------------------------ errors */

static THREAD_LOCAL struct callhome_error last;

static const struct {
	int code;
	const char *name, *words;
} codes[] = {
	{CALLHOME_OK, "CALLHOME_OK", "no error"},
	{CALLHOME_ERR_NAME, "CALLHOME_ERR_NAME", "the name does not resolve"},
	{CALLHOME_ERR_UNAVAILABLE, "CALLHOME_ERR_UNAVAILABLE", "no address answered"},
	{CALLHOME_ERR_HANDOVER, "CALLHOME_ERR_HANDOVER", "sshd did not take the socket"},
	{CALLHOME_ERR_SSH, "CALLHOME_ERR_SSH", "no key exchange"},
	{CALLHOME_ERR_AUTH, "CALLHOME_ERR_AUTH", "no login"},
	{CALLHOME_ERR_SUBSYSTEM, "CALLHOME_ERR_SUBSYSTEM", "no netconf subsystem"},
	{CALLHOME_ERR_NOEXISTS, "CALLHOME_ERR_NOEXISTS", "no such session"},
	{CALLHOME_ERR_ACCESS_DENIED, "CALLHOME_ERR_ACCESS_DENIED", "access denied"},
	{CALLHOME_ERR_BADTYPE, "CALLHOME_ERR_BADTYPE", "a parameter is wrong"},
	{CALLHOME_ERR_OS, "CALLHOME_ERR_OS", "the operating system failed"},
	{CALLHOME_ERR_BUSY, "CALLHOME_ERR_BUSY", "a limit is reached"},
	{CALLHOME_ERR_SHUTDOWN, "CALLHOME_ERR_SHUTDOWN", "the manager is stopping"},
	{CALLHOME_ERR_BAD_CONFIG, "CALLHOME_ERR_BAD_CONFIG", "a configuration was refused"},
	{CALLHOME_ERR_NOMANAGER, "CALLHOME_ERR_NOMANAGER", "the manager does not run"},
	{CALLHOME_ERR_CLOSED, "CALLHOME_ERR_CLOSED", "the manager closed the connection"},
	{CALLHOME_ERR_TIMEOUT, "CALLHOME_ERR_TIMEOUT", "no answer in time"},
	{CALLHOME_ERR_PROTOCOL, "CALLHOME_ERR_PROTOCOL", "client and manager do not understand each other"},
};

static int row_of(int code)
{
	size_t i;

	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (codes[i].code == code)
			return (int)i;
	return -1;
}

const char *callhome_strerror(int code)
{
	int i = row_of(code);

	return i < 0 ? "unknown error" : codes[i].words;
}

const char *callhome_errname(int code)
{
	int i = row_of(code);

	return i < 0 ? "CALLHOME_ERR_UNKNOWN" : codes[i].name;
}

const struct callhome_error *callhome_error(void) { return &last; }

const char *callhome_lasterr(void) { return last.message; }

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static int fail(int code, const char *format, ...)
{
	va_list args;

	memset(&last, 0, sizeof(last));
	last.code = code;
	va_start(args, format);
	vsnprintf(last.message, sizeof(last.message), format, args);
	va_end(args);
	return code == CALLHOME_ERR_CLOSED ? CALLHOME_EOF : CALLHOME_ERR;
}

static int fail_os(int code, int number, const char *doing)
{
	char words[128];

	if (strerror_r(number, words, sizeof(words)) != 0)
		snprintf(words, sizeof(words), "error %d", number);
	fail(code, "%s: %s", doing, words);
	snprintf(last.reason, sizeof(last.reason), "%s", words);
	return CALLHOME_ERR;
}

/* ------------------------------------------------------------ JSON, written */

struct request {
	const char *method;
	size_t len;
	int fields;
	const char *bad; /* why it cannot be sent */
	char text[MAX_REQUEST];
};

static void put(struct request *r, const char *bytes, size_t n)
{
	if (n > sizeof(r->text) - r->len) {
		r->bad = "the parameters are too long";
		return;
	}
	memcpy(r->text + r->len, bytes, n);
	r->len += n;
}

static void puts_raw(struct request *r, const char *s) { put(r, s, strlen(s)); }

/*
 * rune takes one character off p and returns how many bytes it had; 0 where
 * they are no UTF-8 (RFC 3629: shortest form, no surrogates, up to U+10FFFF).
 */
static size_t rune(const char *p, const char *end, uint32_t *out)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *u = (const unsigned char *)p;
	size_t i, n = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : u[0] < 0xf5 ? 4 : 0;
	uint32_t c;

	if (n == 0 || n > (size_t)(end - p))
		return 0;
	c = n == 1 ? u[0] : u[0] & (0x7fu >> n);
	for (i = 1; i < n; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (u[i] & 0x3fu);
	}
	if (c < least[n] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
		return 0;
	*out = c;
	return n;
}

/* What is not printable ASCII travels as \uXXXX: nothing depends on encodings. */
static void put_string(struct request *r, const char *s)
{
	const char *end = s + strlen(s);
	char escape[16];
	uint32_t c = 0;
	size_t n;

	puts_raw(r, "\"");
	for (; s < end && !r->bad; s += n) {
		n = rune(s, end, &c);
		if (n == 0) {
			r->bad = "a string is not UTF-8, which JSON cannot carry";
			return;
		}
		if (c >= 0x10000)
			snprintf(escape, sizeof(escape), "\\u%04x\\u%04x",
				 (unsigned)(0xd800 + ((c - 0x10000) >> 10)), (unsigned)(0xdc00 + (c & 0x3ff)));
		else if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
			snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)c);
		else
			snprintf(escape, sizeof(escape), "%c", (int)c);
		puts_raw(r, escape);
	}
	puts_raw(r, "\"");
}

static void begin(struct request *r, const char *method)
{
	r->method = method;
	r->len = 0;
	r->fields = 0;
	r->bad = NULL;
	puts_raw(r, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":");
	put_string(r, method);
}

static void field(struct request *r, const char *name)
{
	puts_raw(r, r->fields++ ? "," : ",\"params\":{");
	put_string(r, name);
	puts_raw(r, ":");
}

static void field_string(struct request *r, const char *name, const char *value)
{
	field(r, name);
	put_string(r, value);
}

static void field_int(struct request *r, const char *name, int value)
{
	char digits[24];

	field(r, name);
	snprintf(digits, sizeof(digits), "%d", value);
	puts_raw(r, digits);
}

static void end_request(struct request *r) { puts_raw(r, r->fields ? "}}\n" : "}\n"); }

/* --------------------------------------------------------------- JSON, read */

/* A piece of a line: one value, or the rest of an array. */
struct span {
	const char *p, *end;
};

static const char *skip_space(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
		p++;
	return p;
}

static int hex4(const char *p, const char *end, uint32_t *out)
{
	int i;

	if (end - p < 4)
		return 0;
	*out = 0;
	for (i = 0; i < 4; i++) {
		char c = p[i];
		uint32_t d = c >= '0' && c <= '9' ? (uint32_t)(c - '0')
			   : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
			   : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10) : 16;

		if (d == 16)
			return 0;
		*out = *out << 4 | d;
	}
	return 1;
}

/*
 * string_rune takes one character of a JSON string off p, escapes undone, and
 * returns how many bytes it had there; 0 where it is no character. A surrogate without
 * its other half is U+FFFD.
 */
static size_t string_rune(const char *p, const char *end, uint32_t *out)
{
	static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
	const char *letter;
	uint32_t low;

	if (*p != '\\')
		return (unsigned char)*p < 0x20 ? 0 : rune(p, end, out);
	if (end - p < 2)
		return 0;
	if (p[1] != 'u') {
		letter = p[1] ? strchr(letters, p[1]) : NULL;
		if (!letter)
			return 0;
		*out = (unsigned char)values[letter - letters];
		return 2;
	}
	if (!hex4(p + 2, end, out))
		return 0;
	if (*out < 0xd800 || *out > 0xdfff)
		return 6;
	if (*out < 0xdc00 && end - p >= 12 && p[6] == '\\' && p[7] == 'u' &&
	    hex4(p + 8, end, &low) && low >= 0xdc00 && low <= 0xdfff) {
		*out = 0x10000 + ((*out - 0xd800) << 10) + (low - 0xdc00);
		return 12;
	}
	*out = 0xfffd;
	return 6;
}

/* The skip functions return what follows the JSON value at p, or NULL if it is invalid. */

static const char *skip_string(const char *p, const char *end)
{
	uint32_t c;
	size_t n;

	if (p == end || *p != '"')
		return NULL;
	for (p++; p < end && *p != '"'; p += n) {
		n = string_rune(p, end, &c);
		if (n == 0)
			return NULL;
	}
	return p < end ? p + 1 : NULL;
}

static const char *skip_digits(const char *p, const char *end)
{
	const char *begun = p;

	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p > begun ? p : NULL;
}

static const char *skip_number(const char *p, const char *end)
{
	if (p < end && *p == '-')
		p++;
	if (p < end && *p == '0')
		p++;
	else if (!(p = skip_digits(p, end)))
		return NULL;
	if (p < end && *p == '.' && !(p = skip_digits(p + 1, end)))
		return NULL;
	if (p < end && (*p == 'e' || *p == 'E')) {
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		p = skip_digits(p, end);
	}
	return p;
}

static const char *skip_scalar(const char *p, const char *end)
{
	static const char *const words[] = {"true", "false", "null"};
	size_t i, n;

	if (*p == '"')
		return skip_string(p, end);
	for (i = 0; i < 3; i++) {
		n = strlen(words[i]);
		if ((size_t)(end - p) >= n && memcmp(p, words[i], n) == 0)
			return p + n;
	}
	return skip_number(p, end);
}

static const char *skip_key(const char *p, const char *end)
{
	p = skip_string(skip_space(p, end), end);
	if (!p)
		return NULL;
	p = skip_space(p, end);
	return p < end && *p == ':' ? p + 1 : NULL;
}

static const char *skip_value(const char *p, const char *end)
{
	uint32_t objects = 0; /* a bit for each open bracket, 1: it is a { */
	int depth = 0;

	for (;;) {
		p = skip_space(p, end);
		if (p == end)
			return NULL;
		if (*p == '{' || *p == '[') {
			int object = *p == '{';

			if (depth++ == MAX_DEPTH)
				return NULL;
			objects = objects << 1 | (uint32_t)object;
			p = skip_space(p + 1, end);
			if (p == end)
				return NULL;
			if (*p != (object ? '}' : ']')) {
				if (object && !(p = skip_key(p, end)))
					return NULL;
				continue;
			}
		} else if (!(p = skip_scalar(p, end))) {
			return NULL;
		}
		for (;;) { /* a value has ended, or an empty bracket is about to */
			if (depth == 0)
				return p;
			p = skip_space(p, end);
			if (p == end)
				return NULL;
			if (*p == ',') {
				p++;
				if ((objects & 1) && !(p = skip_key(p, end)))
					return NULL;
				break;
			}
			if (*p != (objects & 1 ? '}' : ']'))
				return NULL;
			p++;
			depth--;
			objects >>= 1;
		}
	}
}

/*
 * next takes the first value off the inside of an array or object that
 * skip_value has accepted; 0 at its end. The key of an object's goes to key.
 */
static int next(struct span *rest, struct span *key, struct span *value)
{
	const char *p = skip_space(rest->p, rest->end);

	if (p < rest->end && *p == ',')
		p = skip_space(p + 1, rest->end);
	if (p >= rest->end || *p == '}' || *p == ']')
		return 0;
	if (key) {
		key->p = p;
		key->end = skip_string(p, rest->end);
		p = skip_key(p, rest->end);
		if (!p)
			return 0;
	}
	value->p = skip_space(p, rest->end);
	value->end = skip_value(value->p, rest->end);
	rest->p = value->end;
	return value->end != NULL;
}

static void text(struct span v, char *out, size_t size)
{
	size_t n, used = 0;
	uint32_t c = 0;

	out[0] = '\0';
	if (v.p == v.end || *v.p != '"')
		return;
	for (v.p++; v.p < v.end && *v.p != '"'; v.p += n) {
		n = string_rune(v.p, v.end, &c);
		if (n == 0)
			break;
		if (c == 0)
			c = 0xfffd;
		if (size - used <= (size_t)(c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4))
			break;
		if (c < 0x80) {
			out[used++] = (char)c;
		} else {
			if (c >= 0x10000) {
				out[used++] = (char)(0xf0 | c >> 18);
				out[used++] = (char)(0x80 | (c >> 12 & 0x3f));
			} else if (c >= 0x800) {
				out[used++] = (char)(0xe0 | c >> 12);
			}
			out[used++] = (char)(c >= 0x800 ? (0x80 | (c >> 6 & 0x3f)) : (0xc0 | c >> 6));
			out[used++] = (char)(0x80 | (c & 0x3f));
		}
		out[used] = '\0';
	}
}

static int64_t integer(struct span v)
{
	int64_t n = 0, sign = 1;

	if (v.p < v.end && *v.p == '-') {
		sign = -1;
		v.p++;
	}
	for (; v.p < v.end; v.p++) {
		if (*v.p < '0' || *v.p > '9' || n > (INT64_MAX - 9) / 10)
			return 0;
		n = n * 10 + (*v.p - '0');
	}
	return sign * n;
}

static int small(struct span v)
{
	int64_t n = integer(v);

	return n < INT_MIN || n > INT_MAX ? 0 : (int)n;
}

static int is_true(struct span v) { return v.p < v.end && *v.p == 't'; }

static int is(struct span v, char first) { return v.p < v.end && *v.p == first; }

static int given(struct span v) { return v.p < v.end && *v.p != 'n'; } /* null is nothing */

/* member finds a member of an object; an empty span if the object lacks it. */
static struct span member(struct span object, const char *name)
{
	struct span key, value, none = {NULL, NULL};
	char buf[64];

	if (!is(object, '{'))
		return none;
	object.p++;
	while (next(&object, &key, &value)) {
		text(key, buf, sizeof(buf));
		if (strcmp(buf, name) == 0)
			return value;
	}
	return none;
}

/* ------------------------------------------------------------- the socket */

/* A time on the monotonic clock, in milliseconds; 0: never. */
static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + 1;
}

/* The socket itself keeps how long a call may take: we never use SO_RCVTIMEO. */
static int deadline_of(int sock, int64_t *deadline)
{
	struct timeval t;
	socklen_t size = sizeof(t);

	if (getsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &t, &size) != 0)
		return fail_os(CALLHOME_ERR_OS, errno, "using the manager's socket");
	*deadline = t.tv_sec == 0 && t.tv_usec == 0 ? 0 : now_ms() + (int64_t)t.tv_sec * 1000 + t.tv_usec / 1000;
	return CALLHOME_OK;
}

static int await(int sock, short events, int64_t deadline)
{
	struct pollfd fd;
	int64_t left = -1;
	int n;

	fd.fd = sock;
	fd.events = events;
	for (;;) {
		if (deadline) {
			left = deadline - now_ms();
			if (left < 0)
				left = 0;
			else if (left > INT_MAX)
				left = INT_MAX;
		}
		n = poll(&fd, 1, (int)left);
		if (n > 0)
			return CALLHOME_OK; /* or an error, which the next system call returns */
		if (n == 0 && deadline && now_ms() >= deadline)
			return fail(CALLHOME_ERR_TIMEOUT, "no answer from callhome-mgr in time");
		if (n < 0 && errno != EINTR)
			return fail_os(CALLHOME_ERR_OS, errno, "waiting for callhome-mgr");
	}
}

static int gone(int number) { return number == EPIPE || number == ECONNRESET || number == ENOTCONN; }

/*
 * send_all sends the message, with fd (or -1) beside its first byte. Where the
 * manager has closed the connection it succeeds: an answer may be left to read.
 */
static int send_all(int sock, const char *p, size_t n, int fd, int64_t deadline)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr m;
	struct iovec part;
	ssize_t sent;

	while (n > 0) {
		memset(&m, 0, sizeof(m));
		part.iov_base = (void *)(uintptr_t)p;
		part.iov_len = n;
		m.msg_iov = &part;
		m.msg_iovlen = 1;
		if (fd >= 0) {
			struct cmsghdr *c;

			memset(&control, 0, sizeof(control));
			m.msg_control = control.bytes;
			m.msg_controllen = sizeof(control.bytes);
			c = CMSG_FIRSTHDR(&m);
			c->cmsg_level = SOL_SOCKET;
			c->cmsg_type = SCM_RIGHTS;
			c->cmsg_len = CMSG_LEN(sizeof(int));
			memcpy(CMSG_DATA(c), &fd, sizeof(int));
		}
		sent = sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent > 0) {
			p += sent;
			n -= (size_t)sent;
			fd = -1;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			if (await(sock, POLLOUT, deadline) != CALLHOME_OK)
				return CALLHOME_ERR;
		} else if (gone(errno)) {
			return CALLHOME_OK;
		} else if (errno != EINTR) {
			return fail_os(CALLHOME_ERR_OS, errno, "asking callhome-mgr");
		}
	}
	return CALLHOME_OK;
}

struct line {
	char *text; /* for free() */
	size_t len; /* without the newline */
	size_t room;
};

/* make_room keeps at least one byte free behind the line. */
static int make_room(struct line *l)
{
	size_t room = l->room ? l->room * 2 : 4096;
	char *more;

	if (l->len < l->room)
		return CALLHOME_OK;
	if (room > MAX_ANSWER)
		return fail(CALLHOME_ERR_PROTOCOL, "callhome-mgr sent more than %d bytes in one line", MAX_ANSWER);
	more = realloc(l->text, room);
	if (!more)
		return fail_os(CALLHOME_ERR_OS, ENOMEM, "reading callhome-mgr's answer");
	l->text = more;
	l->room = room;
	return CALLHOME_OK;
}

/*
 * read_line reads one line and leaves what follows it in the socket: it looks
 * first, and takes then. The caller frees l->text, also on error.
 */
static int read_line(int sock, struct line *l, int64_t deadline)
{
	const char *newline;
	size_t take;
	ssize_t n;
	int got;

	for (;;) {
		got = make_room(l);
		if (got != CALLHOME_OK)
			return got;
		n = recv(sock, l->text + l->len, l->room - l->len, MSG_PEEK | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			if (await(sock, POLLIN, deadline) != CALLHOME_OK)
				return CALLHOME_ERR;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && !gone(errno))
			return fail_os(CALLHOME_ERR_OS, errno, "reading callhome-mgr's answer");
		if (n <= 0)
			return fail(CALLHOME_ERR_CLOSED, "callhome-mgr closed the connection");
		newline = memchr(l->text + l->len, '\n', (size_t)n);
		take = newline ? (size_t)(newline - (l->text + l->len)) + 1 : (size_t)n;
		do
			n = recv(sock, l->text + l->len, take, MSG_DONTWAIT);
		while (n < 0 && errno == EINTR);
		if (n <= 0 || (size_t)n > take)
			return fail(CALLHOME_ERR_PROTOCOL, "another thread or process reads from the manager's socket");
		l->len += (size_t)n;
		if (newline && (size_t)n == take) {
			l->len--;
			return CALLHOME_OK;
		}
		/* A line that comes in drops must not outlast the deadline either. */
		if (deadline && now_ms() >= deadline)
			return fail(CALLHOME_ERR_TIMEOUT, "no whole answer from callhome-mgr in time");
	}
}

int callhome_set_timeout(int sock, int milliseconds)
{
	struct timeval t;

	if (milliseconds < 0)
		return fail(CALLHOME_ERR_BADTYPE, "a timeout of %d ms; expected 0 or more", milliseconds);
	t.tv_sec = milliseconds / 1000;
	t.tv_usec = milliseconds % 1000 * 1000;
	if (setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) != 0)
		return fail_os(CALLHOME_ERR_OS, errno, "using the manager's socket");
	return CALLHOME_OK;
}

static int no_manager(int number, const char *path)
{
	char doing[160];

	if (number == EAGAIN)
		return fail(CALLHOME_ERR_TIMEOUT, "callhome-mgr at %s does not take the connection", path);
	if (number == ENOENT || number == ECONNREFUSED) {
		fail_os(CALLHOME_ERR_NOMANAGER, number, "");
		snprintf(last.message, sizeof(last.message), "callhome-mgr does not run: no listener at %s", path);
		last.retry = 1;
		return CALLHOME_ERR;
	}
	snprintf(doing, sizeof(doing), "calling callhome-mgr at %s", path);
	return fail_os(number == EACCES || number == EPERM ? CALLHOME_ERR_ACCESS_DENIED : CALLHOME_ERR_OS, number, doing);
}

/* connect_within returns 0 or an errno; EAGAIN: the manager's queue is full. */
static int connect_within(int sock, const struct sockaddr_un *to)
{
	struct timeval t = {CONNECT_TIME, 0};
	int64_t deadline = now_ms() + CONNECT_TIME * 1000;

	/* It bounds connect(2), and nothing else as we use the socket. */
	if (setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t)) != 0)
		return errno;
	while (connect(sock, (const struct sockaddr *)to, sizeof(*to)) != 0) {
		/* One that was interrupted has not begun: so it is with Unix sockets. */
		if (errno != EINTR)
			return errno;
		if (now_ms() >= deadline)
			return EAGAIN;
	}
	return 0;
}

int callhome_connect(const char *path)
{
	struct sockaddr_un to;
	int sock, number;

	if (!path)
		path = CALLHOME_SOCKET;
	memset(&to, 0, sizeof(to));
	to.sun_family = AF_UNIX;
	if (!*path || strlen(path) >= sizeof(to.sun_path))
		return fail(CALLHOME_ERR_BADTYPE, "a socket's path has 1 to %d bytes, this one %d",
			    (int)sizeof(to.sun_path) - 1, (int)strlen(path));
	memcpy(to.sun_path, path, strlen(path));
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return fail_os(CALLHOME_ERR_OS, errno, "making a socket");
	number = connect_within(sock, &to);
	if (number == 0 && callhome_set_timeout(sock, CALLHOME_TIMEOUT_MS) == CALLHOME_OK)
		return sock;
	if (number != 0)
		no_manager(number, path);
	close(sock);
	return CALLHOME_ERR;
}

int callhome_close(int sock)
{
	/* Linux has closed it, also where close(2) was interrupted. */
	if (close(sock) != 0 && errno != EINTR)
		return fail_os(CALLHOME_ERR_OS, errno, "closing the manager's socket");
	return CALLHOME_OK;
}

/* --------------------------------------------------------------- one call */

static int not_understood(const struct line *l)
{
	char begun[160];
	size_t i, n = l->len < sizeof(begun) - 1 ? l->len : sizeof(begun) - 1;

	for (i = 0; i < n; i++)
		begun[i] = (char)(l->text[i] >= ' ' && l->text[i] < 0x7f ? l->text[i] : '?');
	begun[n] = '\0';
	fail(CALLHOME_ERR_PROTOCOL, "callhome-mgr's answer is not understood");
	memcpy(last.reason, begun, n + 1);
	return CALLHOME_ERR;
}

/* refused takes over the error that the manager answered with. */
static int refused(struct span error)
{
	struct span data = member(error, "data");
	int code = small(member(error, "code"));

	fail(code >= 1 && code <= 99 ? code : code == -32602 ? CALLHOME_ERR_BADTYPE : CALLHOME_ERR_PROTOCOL, "%s", "");
	last.rpc = code;
	text(member(error, "message"), last.message, sizeof(last.message));
	last.retry = is_true(member(data, "retry"));
	last.session = small(member(data, "session"));
	text(member(data, "stage"), last.stage, sizeof(last.stage));
	text(member(data, "address"), last.address, sizeof(last.address));
	/* JSON-RPC's own errors have words in place of our object. */
	text(is(data, '"') ? data : member(data, "reason"), last.reason, sizeof(last.reason));
	return CALLHOME_ERR;
}

/* What a line is. */
enum kind { K_BAD, K_RESULT, K_ERROR, K_EVENT };

static enum kind parse(const struct line *l, struct span *out)
{
	struct span all, id, method, error, result;
	const char *end = l->text + l->len;
	char word[8];

	all.p = skip_space(l->text, end);
	all.end = skip_value(all.p, end);
	if (!all.end || skip_space(all.end, end) != end || !is(all, '{'))
		return K_BAD;
	text(member(all, "jsonrpc"), word, sizeof(word));
	if (strcmp(word, "2.0") != 0)
		return K_BAD;
	method = member(all, "method");
	if (given(method)) {
		text(method, word, sizeof(word));
		*out = member(all, "params");
		return strcmp(word, "event") == 0 && is(*out, '{') ? K_EVENT : K_BAD;
	}
	id = member(all, "id");
	error = member(all, "error");
	result = member(all, "result");
	if (is(error, '{') && !given(result)) {
		*out = error;
		/* One without a number, or number 0, is about the connection itself. */
		return integer(id) == 1 || integer(id) == 0 ? K_ERROR : K_BAD;
	}
	*out = result;
	return is(result, '{') && !given(error) && integer(id) == 1 ? K_RESULT : K_BAD;
}

/*
 * call sends r, with fd (or -1), and reads the answer into l; the result is in
 * *out, a part of l. The caller frees l->text, also on error.
 */
static int call(int sock, struct request *r, int fd, struct line *l, struct span *out)
{
	int64_t deadline = 0;
	int subscribing = strcmp(r->method, "subscribe") == 0;
	int got;

	memset(l, 0, sizeof(*l));
	end_request(r);
	if (r->bad)
		return fail(CALLHOME_ERR_BADTYPE, "%s", r->bad);
	got = deadline_of(sock, &deadline);
	if (got == CALLHOME_OK)
		got = send_all(sock, r->text, r->len, fd, deadline);
	while (got == CALLHOME_OK) {
		l->len = 0;
		got = read_line(sock, l, deadline);
		if (got != CALLHOME_OK)
			break;
		switch (parse(l, out)) {
		case K_RESULT:
			return CALLHOME_OK;
		case K_ERROR:
			return refused(*out);
		case K_EVENT: /* it may come before the answer to subscribe */
			if (!subscribing)
				got = fail(CALLHOME_ERR_PROTOCOL, "this socket is subscribed to events; calls need another");
			else if (deadline && now_ms() >= deadline)
				got = fail(CALLHOME_ERR_TIMEOUT, "no answer from callhome-mgr in time");
			break;
		case K_BAD:
			got = not_understood(l);
			break;
		}
	}
	shutdown(sock, SHUT_RDWR);
	return got;
}

/* ask is a call whose result does not matter. */
static int ask(int sock, struct request *r)
{
	struct span result;
	struct line l;
	int got = call(sock, r, -1, &l, &result);

	free(l.text);
	return got;
}

/* ask_session is a call whose result is a session; its number is returned. */
static int ask_session(int sock, struct request *r, int fd)
{
	struct span result;
	struct line l;
	int got = call(sock, r, fd, &l, &result);

	if (got == CALLHOME_OK) {
		got = small(member(result, "session"));
		if (got <= 0)
			got = not_understood(&l);
	}
	free(l.text);
	return got;
}

static int simple(int sock, const char *method)
{
	struct request r;

	begin(&r, method);
	return ask(sock, &r);
}

/* ------------------------------------------------------------- the methods */

static int target(struct request *r, const char *host, const char *opaque, int port)
{
	if (!host)
		return fail(CALLHOME_ERR_BADTYPE, "no host given");
	if (port < 0 || port > 65535)
		return fail(CALLHOME_ERR_BADTYPE, "port %d is not a number from 0 to 65535", port);
	field_string(r, "host", host);
	if (port)
		field_int(r, "port", port);
	if (opaque)
		field_string(r, "opaque", opaque);
	return CALLHOME_OK;
}

static int field_wait(struct request *r, enum callhome_wait wait)
{
	static const char *const waits[] = {"none", "tcp", "ssh", "netconf"};

	if ((int)wait < CALLHOME_WAIT_NONE || (int)wait > CALLHOME_WAIT_NETCONF)
		return fail(CALLHOME_ERR_BADTYPE, "wait %d is not of enum callhome_wait", (int)wait);
	field_string(r, "wait", waits[wait]);
	return CALLHOME_OK;
}

int callhome_netconf_ssh_call_home_wait(int sock, const char *host, const char *opaque, int port, enum callhome_wait wait)
{
	struct request r;

	begin(&r, opaque ? "netconf_ssh_call_home_opaque" : "netconf_ssh_call_home");
	if (target(&r, host, opaque, port) != CALLHOME_OK || field_wait(&r, wait) != CALLHOME_OK)
		return CALLHOME_ERR;
	return ask_session(sock, &r, -1);
}

int callhome_call_client(int sock, const char *client, enum callhome_wait wait)
{
	struct request r;

	if (!client)
		return fail(CALLHOME_ERR_BADTYPE, "no client given");
	begin(&r, "netconf_ssh_call_home");
	field_string(&r, "client", client);
	if (field_wait(&r, wait) != CALLHOME_OK)
		return CALLHOME_ERR;
	return ask_session(sock, &r, -1);
}

int callhome_netconf_ssh_call_home_opaque(int sock, const char *host, const char *opaque, int port)
{
	int got = callhome_netconf_ssh_call_home_wait(sock, host, opaque, port, CALLHOME_WAIT_TCP);

	return got < 0 ? got : CALLHOME_OK;
}

int callhome_netconf_ssh_call_home(int sock, const char *host, int port)
{
	return callhome_netconf_ssh_call_home_opaque(sock, host, NULL, port);
}

int callhome_handover(int sock, int fd, const char *host, const char *opaque, int port)
{
	struct request r;

	if (fd < 0)
		return fail(CALLHOME_ERR_BADTYPE, "descriptor %d is negative", fd);
	begin(&r, "handover");
	if (target(&r, host, opaque, port ? port : CALLHOME_PORT) != CALLHOME_OK)
		return CALLHOME_ERR;
	return ask_session(sock, &r, fd);
}

static void read_session(struct span v, struct callhome_session *s)
{
	struct span stats = member(v, "stats");

	memset(s, 0, sizeof(*s));
	s->session = small(member(v, "session"));
	s->port = small(member(v, "port"));
	s->pid = small(member(v, "pid"));
	text(member(v, "state"), s->state, sizeof(s->state));
	text(member(v, "host"), s->host, sizeof(s->host));
	text(member(v, "opaque"), s->opaque, sizeof(s->opaque));
	text(member(v, "remote"), s->remote, sizeof(s->remote));
	text(member(v, "local"), s->local, sizeof(s->local));
	text(member(v, "since"), s->since, sizeof(s->since));
	text(member(v, "ended"), s->ended, sizeof(s->ended));
	text(member(v, "via"), s->via, sizeof(s->via));
	text(member(v, "user"), s->user, sizeof(s->user));
	text(member(v, "method"), s->method, sizeof(s->method));
	text(member(v, "key"), s->key, sizeof(s->key));
	text(member(v, "cert"), s->cert, sizeof(s->cert));
	text(member(v, "stage"), s->stage, sizeof(s->stage));
	text(member(v, "end"), s->end, sizeof(s->end));
	s->graceful = is_true(member(v, "graceful"));
	text(member(v, "cause"), s->cause, sizeof(s->cause));
	s->has_stats = is(stats, '{');
	s->bytes_sent = integer(member(stats, "bytes-sent"));
	s->bytes_received = integer(member(stats, "bytes-received"));
	s->retransmits = integer(member(stats, "retransmits"));
	s->unacked = integer(member(stats, "unacked"));
	s->rtt_ns = integer(member(stats, "rtt-ns"));
	s->last_data_ns = integer(member(stats, "last-data-ns"));
	text(member(v, "client"), s->client, sizeof(s->client));
	text(member(v, "endpoint"), s->endpoint, sizeof(s->endpoint));
}

static void read_client(struct span v, struct callhome_client *c)
{
	struct span error = member(v, "last-error");

	memset(c, 0, sizeof(*c));
	text(member(v, "client"), c->client, sizeof(c->client));
	text(member(v, "state"), c->state, sizeof(c->state));
	text(member(v, "since"), c->since, sizeof(c->since));
	text(member(v, "endpoint"), c->endpoint, sizeof(c->endpoint));
	text(member(v, "address"), c->address, sizeof(c->address));
	text(member(v, "user"), c->user, sizeof(c->user));
	text(member(v, "next-attempt"), c->next_attempt, sizeof(c->next_attempt));
	text(member(error, "time"), c->error_time, sizeof(c->error_time));
	text(member(error, "stage"), c->error_stage, sizeof(c->error_stage));
	text(member(error, "end"), c->error_end, sizeof(c->error_end));
	text(member(error, "message"), c->error, sizeof(c->error));
	c->session = small(member(v, "session"));
	c->periodic = is_true(member(v, "periodic"));
	c->attempts = small(member(v, "attempts"));
	c->attempts_left = small(member(v, "attempts-left"));
	c->failures = small(member(v, "failures"));
	c->connections = integer(member(v, "connections"));
}

/* sessions asks for the list; *rest is the inside of it. */
static int sessions(int sock, struct line *l, struct span *rest)
{
	struct span result;
	struct request r;
	int got;

	begin(&r, "get_user_sessions");
	got = call(sock, &r, -1, l, &result);
	if (got != CALLHOME_OK)
		return got;
	*rest = member(result, "sessions");
	if (!is(*rest, '['))
		return not_understood(l);
	rest->p++;
	return CALLHOME_OK;
}

int callhome_get_user_sessions(int sock, int res[], int n)
{
	struct span rest, one;
	struct line l;
	int got = sessions(sock, &l, &rest), count = 0;

	while (got == CALLHOME_OK && next(&rest, NULL, &one)) {
		if (count < n)
			res[count] = small(member(one, "session"));
		count++;
	}
	free(l.text);
	return got == CALLHOME_OK ? count : got;
}

int callhome_get_user_session(int sock, int usid, struct callhome_session *out)
{
	struct span rest, one;
	struct line l;
	int got = sessions(sock, &l, &rest), found = 0;

	while (got == CALLHOME_OK && !found && next(&rest, NULL, &one)) {
		found = small(member(one, "session")) == usid;
		if (found)
			read_session(one, out);
	}
	free(l.text);
	if (got != CALLHOME_OK || found)
		return got;
	return fail(CALLHOME_ERR_NOEXISTS, "there is no session %d", usid);
}

int callhome_kill_user_session(int sock, int usid)
{
	struct request r;

	begin(&r, "kill_user_session");
	field_int(&r, "session", usid);
	return ask(sock, &r);
}

int callhome_reload_config(int sock) { return simple(sock, "reload_config"); }

int callhome_restart_call_home(int sock, const char *client)
{
	struct request r;

	begin(&r, "restart_call_home");
	if (client)
		field_string(&r, "client", client);
	return ask(sock, &r);
}

int callhome_reopen_logs(int sock) { return simple(sock, "reopen_logs"); }

int callhome_stop(int sock) { return simple(sock, "stop"); }

int callhome_wait_start(int sock) { return simple(sock, "wait_start"); }

int callhome_subscribe(int sock) { return simple(sock, "subscribe"); }

/* inside returns the content of a list; an empty span if v is no list. */
static struct span inside(struct span v)
{
	if (is(v, '['))
		v.p++;
	else
		v.p = v.end;
	return v;
}

int callhome_status(int sock, struct callhome_status *out)
{
	struct span result, config, rest, one;
	struct request r;
	struct line l;
	char state[20];
	int got;

	begin(&r, "call_home_status");
	got = call(sock, &r, -1, &l, &result);
	if (got == CALLHOME_OK) {
		memset(out, 0, sizeof(*out));
		out->pid = small(member(result, "pid"));
		out->started = is_true(member(result, "started"));
		out->sessions = small(member(result, "sessions"));
		out->calls = integer(member(result, "calls"));
		out->failed = integer(member(result, "failed"));
		text(member(result, "version"), out->version, sizeof(out->version));
		text(member(result, "since"), out->since, sizeof(out->since));
		config = member(result, "configuration");
		text(member(config, "applied"), out->config_applied, sizeof(out->config_applied));
		text(member(config, "error"), out->config_error, sizeof(out->config_error));
		rest = inside(member(result, "clients"));
		while (next(&rest, NULL, &one)) {
			text(member(one, "state"), state, sizeof(state));
			out->clients++;
			if (strcmp(state, "authenticated") == 0 || strcmp(state, "serving") == 0)
				out->connected++;
		}
	}
	free(l.text);
	return got;
}

int callhome_get_clients(int sock, struct callhome_client res[], int n)
{
	struct span result, rest, one;
	struct request r;
	struct line l;
	int got, count = 0;

	begin(&r, "call_home_status");
	got = call(sock, &r, -1, &l, &result);
	if (got == CALLHOME_OK) {
		rest = inside(member(result, "clients"));
		while (next(&rest, NULL, &one)) {
			if (count < n)
				read_client(one, &res[count]);
			count++;
		}
	}
	free(l.text);
	return got == CALLHOME_OK ? count : got;
}

int callhome_read_event(int sock, struct callhome_event *out)
{
	struct line l = {NULL, 0, 0};
	struct span params;
	int64_t deadline = 0;
	int got = deadline_of(sock, &deadline);

	if (got == CALLHOME_OK)
		got = read_line(sock, &l, deadline);
	if (got == CALLHOME_OK && parse(&l, &params) != K_EVENT)
		got = not_understood(&l);
	if (got == CALLHOME_OK) {
		memset(out, 0, sizeof(*out));
		text(member(params, "time"), out->time, sizeof(out->time));
		text(member(params, "event"), out->event, sizeof(out->event));
		text(member(params, "words"), out->words, sizeof(out->words));
		out->outage_ns = integer(member(params, "outage-ns"));
		read_session(member(params, "session"), &out->session);
		read_client(member(params, "client"), &out->client);
	} else if (last.code != CALLHOME_ERR_TIMEOUT || l.len > 0) {
		shutdown(sock, SHUT_RDWR); /* a part of a line was taken: the rest is no use */
	}
	free(l.text);
	return got;
}
