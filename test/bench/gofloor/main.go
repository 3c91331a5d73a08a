// gofloor is the least that a Go program can do between being started and
// becoming sshd: connect to 127.0.0.1 port argv[1] and execute argv[2:] on the
// socket. The benchmark measures callhome-trigger against it, to separate Go's own
// start-up from our work.
package main

import (
	"os"
	"strconv"
	"syscall"
)

func main() {
	port, err := strconv.Atoi(os.Args[1])
	if err != nil {
		os.Exit(64)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		os.Exit(71)
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		os.Exit(69)
	}
	for to := range 2 {
		if err := syscall.Dup3(fd, to, 0); err != nil {
			os.Exit(71)
		}
	}
	_, _ = syscall.Setsid()
	_ = syscall.Exec(os.Args[2], os.Args[2:], []string{"PATH=/usr/sbin:/usr/bin"})
	os.Exit(71)
}
