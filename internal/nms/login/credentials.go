package login

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"callhome/internal/nms/wire"
	"callhome/internal/printable"
	"callhome/internal/sysexits"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Credentials are a user's ways to log in.
type Credentials struct {
	// KeyFiles are private keys, each with its certificate in FILE-cert.pub if that
	// exists. If there are any, the agent and the default keys are not used.
	KeyFiles []string
	// PasswordFile holds the password on its first line.
	PasswordFile string
	// Password is the password; "" for PasswordFile's.
	Password string
	// AgentSocket is ssh-agent's; "" for no agent.
	AgentSocket string
	// DefaultKeys are key files that may be missing.
	DefaultKeys []string
	// Prompt asks the user for a secret; nil without a terminal.
	Prompt func(question string) (string, error)
}

// maxSecret bounds key and password files, in bytes.
const maxSecret = 64 << 10

// Methods returns the ways to log in, in ssh's order: keys, then passwords. The caller
// must close the closer, the connection to ssh-agent, after the login.
func (c Credentials) Methods(user string) ([]wire.Method, io.Closer, error) {
	closer := io.Closer(io.NopCloser(nil))
	signers, err := c.fileSigners()
	if err != nil {
		return nil, nil, err
	}
	var methods []wire.Method
	var keys agent.ExtendedAgent
	if c.AgentSocket != "" && len(c.KeyFiles) == 0 {
		// As with ssh, an agent that does not answer is no error.
		if conn, err := net.Dial("unix", c.AgentSocket); err == nil {
			keys, closer = agent.NewClient(conn), conn
		}
	}
	if keys != nil || len(signers) > 0 {
		methods = append(methods, wire.Method{Name: "publickey", AuthMethod: ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
			if keys == nil {
				return signers, nil
			}
			held, err := keys.Signers()
			if err != nil && len(signers) == 0 {
				return nil, fmt.Errorf("asking ssh-agent: %w", err)
			}
			return append(held, signers...), nil
		})})
	}
	ask, err := c.password(user)
	if err != nil {
		closer.Close()
		return nil, nil, err
	}
	if ask != nil {
		methods = append(methods, wire.Method{Name: "password", AuthMethod: ssh.PasswordCallback(ask)},
			wire.Method{Name: "keyboard-interactive", AuthMethod: ssh.KeyboardInteractive(answer(ask))})
	}
	if len(methods) == 0 {
		return nil, nil, sysexits.New(sysexits.NoInput, "give --privKeyFile or --password-file, or start ssh-agent",
			errors.New("no credential to log in with: no key, no agent, no password, no terminal to ask for one"))
	}
	return methods, closer, nil
}

// password returns the function that gets the password; nil if there is no way to.
func (c Credentials) password(user string) (func() (string, error), error) {
	if c.Password != "" {
		return func() (string, error) { return c.Password, nil }, nil
	}
	if c.PasswordFile != "" {
		text, err := readSecret("password", c.PasswordFile)
		if err != nil {
			return nil, err
		}
		line, _, _ := strings.Cut(string(text), "\n")
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			return nil, sysexits.New(sysexits.NoInput, "write it on the first line", fmt.Errorf("there is no password in %s", c.PasswordFile))
		}
		return func() (string, error) { return line, nil }, nil
	}
	if c.Prompt == nil {
		return nil, nil
	}
	return func() (string, error) { return c.Prompt("password of " + user + ": ") }, nil
}

// answer gives the password to a server that asks one question without echo, as PAM
// does. It never shows the server's question, which is text from outside.
func answer(password func() (string, error)) ssh.KeyboardInteractiveChallenge {
	return func(_, _ string, questions []string, echo []bool) ([]string, error) {
		switch {
		case len(questions) == 0:
			return nil, nil
		case len(questions) > 1 || echo[0]:
			return nil, errors.New("the device asks for more than a password")
		}
		secret, err := password()
		return []string{secret}, err
	}
}

func (c Credentials) fileSigners() (signers []ssh.Signer, err error) {
	for _, file := range c.KeyFiles {
		s, err := c.signers(file)
		if err != nil {
			return nil, err
		}
		signers = append(signers, s...)
	}
	if len(c.KeyFiles) > 0 {
		return signers, nil
	}
	c.Prompt = nil // an encrypted default key is for ssh-agent
	for _, file := range c.DefaultKeys {
		if s, err := c.signers(file); err == nil {
			signers = append(signers, s...)
		}
	}
	return signers, nil
}

// signers returns a file's certificate, if there is one, and its key.
func (c Credentials) signers(file string) ([]ssh.Signer, error) {
	text, err := readSecret("private key", file)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	var missing *ssh.PassphraseMissingError
	if errors.As(err, &missing) && c.Prompt != nil {
		var passphrase string
		if passphrase, err = c.Prompt("passphrase of " + filepath.Base(file) + ": "); err == nil {
			signer, err = ssh.ParsePrivateKeyWithPassphrase(text, []byte(passphrase))
		}
	}
	if err != nil {
		return nil, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading the private key %s: %s", file, printable.SSHError(err)))
	}
	cert, err := os.ReadFile(file + "-cert.pub")
	if errors.Is(err, fs.ErrNotExist) {
		return []ssh.Signer{signer}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of %s: %w", file, err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(cert)
	if err != nil {
		return nil, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading the certificate of %s: it is not a certificate", file))
	}
	certificate, ok := public.(*ssh.Certificate)
	if !ok || !bytes.Equal(certificate.Key.Marshal(), signer.PublicKey().Marshal()) {
		return nil, sysexits.New(sysexits.NoInput, "", fmt.Errorf("%s-cert.pub is not a certificate for that key", file))
	}
	certified, err := ssh.NewCertSigner(certificate, signer)
	return []ssh.Signer{certified, signer}, err
}

// tooOpen reports whether others than the owner have access to a file. A systemd
// credential belongs to root:root with mode 0440: there the group's bits are the mask
// of the ACL that names the service's user.
func tooOpen(info os.FileInfo) bool {
	mode := info.Mode().Perm()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == 0 && stat.Gid == 0 {
		mode &^= 0o040
	}
	return mode&0o077 != 0
}

// readSecret reads a file that only its owner has access to.
func readSecret(what, file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading the %s: %w", what, err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() && tooOpen(info) {
		return nil, sysexits.New(sysexits.NoPerm, "chmod 600 "+file, fmt.Errorf("reading the %s: others can read %s", what, file))
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return nil, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading the %s: %w", what, err))
	}
	return text, nil
}
