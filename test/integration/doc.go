//go:build integration

// Package integration holds the stories of a call home, run with programs
// of other authors: OpenSSH's sshd and ssh, netconfd, ncclient and
// libnetconf2. It owns the private world that they play in (namespaces, users,
// keys) and ends with it; the machine's own sshd, netconfd, /etc and /run are
// never touched. `make test` calls it, as root.
//
//	go test -tags integration ./test/integration/ -run TestFiftySessionsAtOnce -v
//
// CALLHOME_BIN_DIR has a callhome-trigger to test instead of a fresh build,
// CALLHOME_TREES is where the Debian trees of the version stories are kept, and
// CALLHOME_NO_SKIP=1 makes every skip a failure.
//
// A story is a test that reads as verbs; what they mean stands in the files
// named after their nouns (device, nms, client, netconfd, link, tree; document,
// keeper and station for the standing connections). Waits are bounded and say
// what was still wrong, and a story that cannot run here is listed with its
// reason at the end of the run.
package integration
