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

	"callhome/internal/sysexits"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Credentials are what a user can log in with.
type Credentials struct {
	// KeyFiles are private keys, each with FILE-cert.pub beside it if there is
	// one. With any given, the agent and the default keys are not asked.
	KeyFiles []string
	// PasswordFile holds the password on its first line.
	PasswordFile string
	// AgentSocket is ssh-agent's; "" for none.
	AgentSocket string
	// DefaultKeys are key files that need not be there.
	DefaultKeys []string
	// Prompt asks the person at the terminal for a secret; nil if there is none.
	Prompt func(question string) (string, error)
}

// maxSecret bounds key and password files, in bytes.
const maxSecret = 64 << 10

// Methods returns the ways to log in, in the order of ssh: keys, then passwords,
// and what must be closed behind them.
func (c Credentials) Methods(user string) ([]ssh.AuthMethod, io.Closer, error) {
	closer := io.Closer(io.NopCloser(nil))
	signers, err := c.fileSigners()
	if err != nil {
		return nil, nil, err
	}
	var methods []ssh.AuthMethod
	var keys agent.ExtendedAgent
	if c.AgentSocket != "" && len(c.KeyFiles) == 0 {
		// An agent that is gone is none.
		if conn, err := net.Dial("unix", c.AgentSocket); err == nil {
			keys, closer = agent.NewClient(conn), conn
		}
	}
	if keys != nil || len(signers) > 0 {
		methods = append(methods, ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
			if keys == nil {
				return signers, nil
			}
			held, err := keys.Signers()
			if err != nil && len(signers) == 0 {
				return nil, fmt.Errorf("asking ssh-agent: %w", err)
			}
			return append(held, signers...), nil
		}))
	}
	ask, err := c.password(user)
	if err != nil {
		closer.Close()
		return nil, nil, err
	}
	if ask != nil {
		methods = append(methods, ssh.PasswordCallback(ask), ssh.KeyboardInteractive(answer(ask)))
	}
	if len(methods) == 0 {
		return nil, nil, sysexits.New(sysexits.NoInput, "give --privKeyFile or --password-file, or start ssh-agent",
			errors.New("there is nothing to log in with: no key, no agent, no password, no terminal to ask at"))
	}
	return methods, closer, nil
}

// password returns where the password comes from; nil: there is none.
func (c Credentials) password(user string) (func() (string, error), error) {
	if c.PasswordFile != "" {
		text, err := readSecret("password", c.PasswordFile)
		if err != nil {
			return nil, err
		}
		line, _, _ := strings.Cut(string(text), "\n")
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			return nil, sysexits.New(sysexits.NoInput, "it stands on the first line", fmt.Errorf("there is no password in %s", c.PasswordFile))
		}
		return func() (string, error) { return line, nil }, nil
	}
	if c.Prompt == nil {
		return nil, nil
	}
	return func() (string, error) { return c.Prompt("password of " + user + ": ") }, nil
}

// answer gives the password to a server that asks for one thing without echo,
// as PAM does. The server's questions are not shown.
func answer(password func() (string, error)) ssh.KeyboardInteractiveChallenge {
	return func(_, _ string, questions []string, echo []bool) ([]string, error) {
		switch {
		case len(questions) == 0:
			return nil, nil
		case len(questions) > 1 || echo[0]:
			return nil, errors.New("the device asks for more than a password")
		}
		word, err := password()
		return []string{word}, err
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
	c.Prompt = nil // an encrypted key is ssh-agent's to hold
	for _, file := range c.DefaultKeys {
		if s, err := c.signers(file); err == nil {
			signers = append(signers, s...)
		}
	}
	return signers, nil
}

// signers returns a file's key, and before it its certificate.
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
		return nil, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading the private key %s: %s", file, strings.TrimPrefix(err.Error(), "ssh: ")))
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
		return nil, sysexits.New(sysexits.NoInput, "", fmt.Errorf("%s-cert.pub is no certificate for that key", file))
	}
	certified, err := ssh.NewCertSigner(certificate, signer)
	return []ssh.Signer{certified, signer}, err
}

// tooOpen reports whether a file's mode lets others than its owner at it. What
// systemd passes as a credential is root's, mode 0440 with the group root: the
// group's bits are the mask of the ACL that names the service's user.
func tooOpen(info os.FileInfo) bool {
	mode := info.Mode().Perm()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == 0 && stat.Gid == 0 {
		mode &^= 0o040
	}
	return mode&0o077 != 0
}

// readSecret reads a file that is for its owner alone.
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
