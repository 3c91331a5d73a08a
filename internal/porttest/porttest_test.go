package porttest

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAReservedPortIsItsTestsAlone(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			addr := Reserve(t, ip).String()
			for range 2 { // a server that is started again, too
				if c, err := net.Dial("tcp", addr); !errors.Is(err, unix.ECONNREFUSED) {
					t.Fatalf("nothing listens: %v, %v", c, err)
				}
				l, err := net.Listen("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				l.Close()
			}
		})
	}
}
