package sshdlog

import (
	"strings"
	"testing"
)

// The lines were recorded from stock sshd, each with the versions that log it.
func TestParseKnowsTheLinesOfEachVersion(t *testing.T) {
	const all = "8.4 to 10.5"
	tests := []struct {
		versions, line string
		want           Line
	}{
		{all, `Connection from 127.0.0.1 port 4334 on 127.0.0.1 port 51112 rdomain ""`, Line{Kind: Connected, Remote: "127.0.0.1 port 4334", Local: "127.0.0.1 port 51112"}},
		{all, `Connection from ::1 port 4334 on ::1 port 51112`, Line{Kind: Connected, Remote: "::1 port 4334", Local: "::1 port 51112"}},
		{all, `Accepted key ED25519 SHA256:abc found at /x:1`, Line{Kind: Attempted}},
		{all, `Postponed publickey for root from 127.0.0.1 port 4334 ssh2 [preauth]`, Line{Kind: Attempted, Preauth: true}},
		{all, `Accepted publickey for root from 127.0.0.1 port 4334 ssh2: ED25519 SHA256:abc`, Line{Kind: Authenticated, Remote: "127.0.0.1 port 4334", User: "root", Method: "publickey", KeyType: "ED25519", Fingerprint: "SHA256:abc"}},
		{all, `Accepted publickey for opsadm from 127.0.0.1 port 4334 ssh2: ED25519-CERT SHA256:abc ID nms-1 (serial 77) CA ED25519 SHA256:def`, Line{Kind: Authenticated, Remote: "127.0.0.1 port 4334", User: "opsadm", Method: "publickey", KeyType: "ED25519-CERT", Fingerprint: "SHA256:abc", Cert: "nms-1", Serial: 77, CAFingerprint: "SHA256:def"}},
		{all, `Accepted certificate ID "nms-1" (serial 77) signed by ED25519 CA SHA256:def via /ca.pub`, Line{Kind: Attempted}},
		{all, `Accepted password for u from 127.0.0.1 port 4334 ssh2`, Line{Kind: Authenticated, Remote: "127.0.0.1 port 4334", User: "u", Method: "password"}},
		{all, `Accepted keyboard-interactive/pam for u from 127.0.0.1 port 1 ssh2`, Line{Kind: Authenticated, Remote: "127.0.0.1 port 1", User: "u", Method: "keyboard-interactive/pam"}},
		{all, `User child is on pid 123`, Line{}},
		{all, `Starting session: subsystem 'netconf' for root from 127.0.0.1 port 4334 id 0`, Line{Kind: Subsystem, User: "root"}},
		{all, `Starting session: forced-command (config) 'exec /bin/sh -c '[ x ]'' for root from 127.0.0.1 port 4334 id 0`, Line{Kind: Subsystem, User: "root"}},
		{all, `subsystem request for nope by user root failed, subsystem not found`, Line{Kind: NoSubsystem}},
		{all, `Close session: user root from 127.0.0.1 port 4334 id 0`, Line{Kind: Finished, User: "root"}},
		{all, `Received disconnect from 127.0.0.1 port 4334:11: disconnected by user`, Line{Kind: Closed, Cause: ByClient, Code: "11", Reason: "disconnected by user"}},
		{all, `Received disconnect from 127.0.0.1 port 4334:12: edge7 is connected already [preauth]`, Line{Kind: Closed, Cause: ByClient, Code: "12", Reason: "edge7 is connected already", Preauth: true}},
		{all, `Received disconnect from 127.0.0.1 port 4334:11: `, Line{Kind: Closed, Cause: ByClient, Code: "11"}},
		{all, `Disconnected from user root 127.0.0.1 port 4334`, Line{Kind: Closed, Cause: ByClient, User: "root"}},
		{all, `Connection closed by 127.0.0.1 port 4334`, Line{Kind: Closed, Cause: ClientClosed}},
		{all, `Connection closed by 127.0.0.1 port 4334 [preauth]`, Line{Kind: Closed, Cause: ClientClosed, Preauth: true}},
		{all, `Transferred: sent 2000, received 1500 bytes`, Line{}},
		{all, `Closing connection to 127.0.0.1 port 4334`, Line{Kind: Closed, Cause: ClientClosed}},
		{all, `Read error from remote host 127.0.0.1 port 4334: Connection reset by peer`, Line{Kind: Closed, Cause: Reset}},
		{all, `ssh_dispatch_run_fatal: Connection from 127.0.0.1 port 4334: Broken pipe`, Line{Kind: Closed, Cause: Reset}},
		{all, `ssh_dispatch_run_fatal: Connection from user root 127.0.0.1 port 4334: message authentication code incorrect`, Line{Kind: Closed, Cause: Corrupt, Detail: "message authentication code incorrect", User: "root"}},
		{all, `ssh_dispatch_run_fatal: Connection from authenticating user root ::1 port 4334: invalid format [preauth]`, Line{Kind: Closed, Cause: Corrupt, Detail: "invalid format", User: "root", Preauth: true}},
		{all, `Connection from user root 127.0.0.1 port 4334 timed out`, Line{Kind: Closed, Cause: Timeout, User: "root"}},
		{all, `Connection from invalid user x 127.0.0.1 port 4334: Connection timed out`, Line{Kind: Closed, Cause: Timeout, User: "x"}},
		{all, `x Connection from 127.0.0.1 port 4334: Broken pipe`, Line{}},
		{all, `Read error from remote host 127.0.0.1 port 4334: Connection timed out`, Line{Kind: Closed, Cause: Timeout}},
		{all, `Timeout, client not responding from user root 127.0.0.1 port 4334`, Line{Kind: Closed, Cause: Timeout, User: "root"}},
		{"9.2 to 10.5", `terminating inactive connection from user root 127.0.0.1 port 4334`, Line{Kind: Closed, Cause: Idle, User: "root"}},
		{"8.5 to 9.7", `Timeout before authentication for 127.0.0.1 port 4334`, Line{Kind: Closed, Cause: LoginTimeout}},
		{all, `Failed publickey for root from 127.0.0.1 port 4334 ssh2: ED25519 SHA256:abc`, Line{Kind: Refused, User: "root", Method: "publickey", KeyType: "ED25519", Fingerprint: "SHA256:abc"}},
		{all, `Failed password for invalid user x from 127.0.0.1 port 4334 ssh2`, Line{Kind: Refused, User: "x", Method: "password"}},
		{all, `Connection closed by authenticating user root 127.0.0.1 port 4334 [preauth]`, Line{Kind: Closed, Cause: NotAuthorized, User: "root", Preauth: true}},
		{all, `Disconnecting authenticating user root 127.0.0.1 port 4334: Too many authentication failures [preauth]`, Line{Kind: Closed, Cause: TooManyTries, User: "root", Preauth: true}},
		{all, `Invalid user nosuch from 127.0.0.1 port 4334`, Line{Kind: Refused, User: "nosuch"}},
		{all, `User root from 127.0.0.1 not allowed because not listed in AllowUsers`, Line{Kind: Refused, User: "root"}},
		{all, `User x not allowed because account is locked`, Line{Kind: Refused, User: "x"}},
		{all, `Connection closed by invalid user nosuch 127.0.0.1 port 4334 [preauth]`, Line{Kind: Closed, Cause: NotAuthorized, User: "nosuch", Preauth: true}},
		{all, `ROOT LOGIN REFUSED FROM 127.0.0.1 port 4334 [preauth]`, Line{Kind: Refused, Preauth: true}},
		{"8.4 to 9.9", `Certificate invalid: name is not a listed principal`, Line{Kind: Refused}},
		{"10.5", `Refusing certificate ID "nms-1" serial=77 signed by ED25519 CA SHA256:def: Certificate invalid: name is not a listed principal`, Line{Kind: Refused}},
		{all, `Authentication refused: bad ownership or modes for file /x`, Line{Kind: Refused}},
		{"9.9, 10.5", `administratively prohibited connection for root from 127.0.0.1 port 4334`, Line{Kind: Closed, Cause: Prohibited}},
		{all, `kex_exchange_identification: Connection closed by remote host`, Line{}},
		{all, `Connection reset by 127.0.0.1 port 4334`, Line{Kind: Closed, Cause: Reset}},
		{all, `banner exchange: Connection from 127.0.0.1 port 4334: invalid format`, Line{Kind: Closed, Cause: NotSSH, Detail: "invalid format"}},
		{all, `kex_exchange_identification: client sent invalid protocol identifier "GET / HTTP/1.1"`, Line{Kind: Closed, Cause: NotSSH, Detail: `client sent invalid protocol identifier "GET / HTTP/1.1"`}},
		{all, `Unable to negotiate with ::1 port 4334: no matching key exchange method found. Their offer: a,b: c [preauth]`, Line{Kind: Closed, Cause: NoAlgorithm, Detail: "no matching key exchange method found. Their offer: a,b: c", Preauth: true}},
		{all, `Unable to negotiate with 127.0.0.1 port 4334: no matching host key type found. Their offer: ssh-rsa [preauth]`, Line{Kind: Closed, Cause: NoAlgorithm, Detail: "no matching host key type found. Their offer: ssh-rsa", Preauth: true}},
		{all, `sshd: no hostkeys available -- exiting.`, Line{Kind: Broken}},
		{all, `/etc/x: terminating, 1 bad configuration options`, Line{Kind: Broken}},
		{all, `Missing privilege separation directory: /run/sshd`, Line{Kind: Broken}},
		{all, ``, Line{}},
	}
	for _, tt := range tests {
		for _, end := range []string{"", "\n", "\r\n"} {
			got := Parse(tt.line + end)
			want := tt.want
			want.Text = strings.TrimSuffix(tt.line, " [preauth]")
			if got != want {
				t.Errorf("%s: %q\n got %+v\nwant %+v", tt.versions, tt.line+end, got, want)
			}
		}
	}
}

// A client chooses the user's name, which is part of many lines.
func TestAUserNameCannotImitateALogin(t *testing.T) {
	const claim = "root from 127.0.0.1 port 4334 ssh2: ED25519 SHA256:abc"
	for _, line := range []string{
		"Failed password for invalid user " + claim + " from 192.0.2.1 port 9 ssh2",
		"Invalid user Accepted publickey for " + claim + " from 192.0.2.1 port 9",
		"Connection closed by invalid user Accepted publickey for " + claim + " 192.0.2.1 port 9 [preauth]",
		"input_userauth_request: Accepted publickey for " + claim,
	} {
		if got := Parse(line); got.Kind == Authenticated {
			t.Errorf("%q was parsed as a login of %q", line, got.User)
		}
	}
	// The key comes from the end of the line, whatever the name contains.
	got := Parse("Accepted publickey for a from b from 192.0.2.1 port 9 ssh2: RSA SHA256:x")
	if got.User != "a from b" || got.Fingerprint != "SHA256:x" {
		t.Errorf("user %q, key %q", got.User, got.Fingerprint)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("Accepted publickey for root from 127.0.0.1 port 4334 ssh2: ED25519 SHA256:abc\r\n")
	f.Add("Connection closed by authenticating user root 127.0.0.1 port 4334 [preauth]")
	f.Add("Starting session: forced-command (config) 'x' for u from ::1 port 1 id 0")
	f.Fuzz(func(t *testing.T, raw string) {
		l := Parse(raw)
		if !strings.HasPrefix(raw, l.Text) {
			t.Fatalf("text %q is not the beginning of %q", l.Text, raw)
		}
		if l.Kind == Authenticated && !strings.HasPrefix(raw, "Accepted ") {
			t.Fatalf("%q was parsed as a login", raw)
		}
		if (l.Kind == Closed) != (l.Cause != "") {
			t.Fatalf("%q: kind %q with cause %q", raw, l.Kind, l.Cause)
		}
		if again := Parse(l.Text); again.Kind != l.Kind {
			t.Fatalf("%q: kind %q, without its end %q", raw, l.Kind, again.Kind)
		}
	})
}
