// Package proxy owns the request to a SOCKS or HTTP CONNECT proxy, on an
// established connection, to connect to the NETCONF client. Package connect uses
// it. It never reads a byte beyond the proxy's answer: what follows is SSH, for
// sshd.
package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"time"

	"callhome/internal/device/settings"
	"callhome/internal/sysexits"

	xproxy "golang.org/x/net/proxy"
)

// Auth is the user and password for the proxy; nil for no authentication.
type Auth = xproxy.Auth

// Connect speaks to the proxy at the other end of sock, which it borrows, until
// that has connected to t. An error carries its exit status.
func Connect(sock *os.File, p settings.Proxy, auth *Auth, t settings.Target, deadline time.Time) error {
	// A duplicate: closing it leaves sock open. It shares sock's open file,
	// so the socket is non-blocking from here on; sshdexec undoes that.
	conn, err := net.FileConn(sock)
	if err != nil {
		return sysexits.New(sysexits.OSErr, "", fmt.Errorf("using the connection to the proxy: %w", err))
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return sysexits.New(sysexits.OSErr, "", fmt.Errorf("using the connection to the proxy: %w", err))
	}
	to := net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
	ways := map[string]func(net.Conn, string, *Auth) error{"socks4": socks4, "socks4a": socks4a, "socks5": socks5, "http": connect}
	if err := ways[p.Scheme](conn, to, auth); err != nil {
		return sysexits.New(sysexits.Unavailable, "check that the proxy allows this connection and that the NETCONF client listens",
			fmt.Errorf("the proxy %s port %d did not connect to %s: %w", p.Host, p.Port, to, plainError(err)))
	}
	return nil
}

func plainError(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("no answer in time")
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it closed the connection")
	}
	return err
}

// given is a dialer that has its connection already.
type given struct{ net.Conn }

func (g given) Dial(_, _ string) (net.Conn, error) { return g.Conn, nil }

func (g given) DialContext(context.Context, string, string) (net.Conn, error) { return g.Conn, nil }

func socks5(conn net.Conn, to string, auth *Auth) error {
	d, err := xproxy.SOCKS5("tcp", conn.RemoteAddr().String(), auth, given{conn})
	if err != nil {
		return err
	}
	_, err = d.Dial("tcp", to)
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return err
}

// maxAnswer bounds the header of a CONNECT answer, in bytes.
const maxAnswer = 16 << 10

// connect sends a CONNECT request (RFC 9110 section 9.3.6).
func connect(conn net.Conn, to string, auth *Auth) error {
	request := "CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n"
	if auth != nil {
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(auth.User+":"+auth.Password)) + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return err
	}
	header, err := readHeader(conn)
	if err != nil {
		return err
	}
	status, err := textproto.NewReader(bufio.NewReader(strings.NewReader(header))).ReadLine()
	if err != nil {
		return err
	}
	version, rest, _ := strings.Cut(status, " ")
	if !strings.HasPrefix(version, "HTTP/1.") || len(rest) < 3 {
		return fmt.Errorf("it answers %q, which is not HTTP", status)
	}
	if rest[0] != '2' {
		return fmt.Errorf("it answers %q", status)
	}
	return nil
}

// readHeader reads up to the empty line, one byte at a time: the bytes that
// follow must stay in the socket.
func readHeader(r io.Reader) (string, error) {
	var header []byte
	one := make([]byte, 1)
	for len(header) < maxAnswer {
		if _, err := io.ReadFull(r, one); err != nil {
			return "", err
		}
		header = append(header, one[0])
		// A line may end with LF alone (RFC 9112 section 2.2).
		if bytes.HasSuffix(header, []byte("\n\r\n")) || bytes.HasSuffix(header, []byte("\n\n")) {
			return string(header), nil
		}
	}
	return "", fmt.Errorf("its answer has no end within %d bytes", maxAnswer)
}

// unreadable gives a failure to open the credentials its exit status.
func unreadable(err error) error {
	code, hint := sysexits.NoInput, "create it with one line user:password and mode 0600"
	if errors.Is(err, fs.ErrPermission) {
		code, hint = sysexits.NoPerm, "make it and its directories accessible to this user, who must own it with mode 0600"
	}
	return sysexits.New(code, hint, fmt.Errorf("reading the proxy's credentials: %w", err))
}

// ReadCredentials reads user:password from the first line of a file that only
// its owner may read; "" is no file. An error carries its exit status.
func ReadCredentials(path string) (*Auth, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("%s: others may read it (mode %04o)", path, info.Mode().Perm())
	}
	if err != nil {
		return nil, sysexits.New(sysexits.Config, "chmod 600 "+path, fmt.Errorf("reading the proxy's credentials: %w", err))
	}
	line, err := bufio.NewReader(io.LimitReader(f, 1024)).ReadString('\n')
	user, password, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
	if !ok || err != nil && err != io.EOF || user == "" || len(user) > 255 || len(password) > 255 {
		return nil, sysexits.New(sysexits.Config, "write one line user:password", fmt.Errorf("reading the proxy's credentials: %s has no line user:password of at most 255 bytes each", path))
	}
	return &Auth{User: user, Password: password}, nil
}
