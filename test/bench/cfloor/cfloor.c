/*
 * cfloor is the least that a program can do between being started and becoming
 * sshd: connect to 127.0.0.1 port argv[1] and execute argv[2...] on the socket.
 * The benchmark measures all others against it.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char *env[] = {"PATH=/usr/sbin:/usr/bin", NULL};
	struct sockaddr_in to = {.sin_family = AF_INET};
	int fd;

	if (argc < 3)
		return 64;
	to.sin_port = htons(atoi(argv[1]));
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return 71;
	if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
		return 69;
	if (dup2(fd, 0) < 0 || dup2(fd, 1) < 0)
		return 71;
	(void)setsid();
	execve(argv[2], argv + 2, env);
	return 71;
}
