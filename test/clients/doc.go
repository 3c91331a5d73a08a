//go:build integration

// Package clients holds the stories of the C and the Python client, run
// against the real callhome-mgr with the stock sshd and ssh. Each client runs
// every story: the C one under valgrind and, built once more, under the
// address and undefined-behaviour sanitizers. ask.c and ask.py make the calls;
// they take and print the same words.
//
// All runs as root in namespaces of its own (mounts, processes, network): the
// machine's users, sockets and sshd are not touched, and nothing is left. With
// CALLHOME_BIN_DIR the daemon is taken from there, else it is built.
//
//	go test -tags integration ./test/clients/
package clients
