package wire

import (
	"errors"
	"reflect"
	"unsafe"

	"golang.org/x/crypto/ssh"
)

// Send sends one packet on a connection of golang.org/x/crypto/ssh, beside the library's
// own packets. The library has no function for packets that it does not know (v0.59 has
// a comment that considers one for disconnects), and none to put between its encryption
// and its user. A version with a transport of another name makes it an error. Nothing here can
// see a function of another type: TestTheLibrarysFunctionsHaveTheDeclaredTypes does.
func Send(c ssh.ConnMetadata, packet []byte) error {
	t, err := transport(c)
	if err != nil {
		return err
	}
	return writePacket(t, packet)
}

// receive returns the next packet of a connection whose login is under way. Only the
// goroutine of the login may call it, in a callback.
func receive(c ssh.ConnMetadata) ([]byte, error) {
	t, err := transport(c)
	if err != nil {
		return nil, err
	}
	return readPacket(t)
}

// errLibrary is the error for another layout of the library.
var errLibrary = errors.New("this version of golang.org/x/crypto/ssh has another transport")

// transport returns the *handshakeTransport in the library's connection. It checks the
// name of each type.
func transport(c ssh.ConnMetadata) (unsafe.Pointer, error) {
	v := reflect.ValueOf(c)
	if !points(v, "connection") {
		return nil, errLibrary
	}
	v = v.Elem().FieldByName("transport")
	if !v.IsValid() || v.Kind() != reflect.Interface || !points(v.Elem(), "handshakeTransport") {
		return nil, errLibrary
	}
	return v.Elem().UnsafePointer(), nil
}

// points reports whether v points to a struct of the library.
func points(v reflect.Value, name string) bool {
	if !v.IsValid() || v.Kind() != reflect.Pointer || v.IsNil() {
		return false
	}
	t := v.Type().Elem()
	return t.PkgPath() == "golang.org/x/crypto/ssh" && t.Name() == name && t.Kind() == reflect.Struct
}

//go:linkname writePacket golang.org/x/crypto/ssh.(*handshakeTransport).writePacket
func writePacket(t unsafe.Pointer, packet []byte) error

//go:linkname readPacket golang.org/x/crypto/ssh.(*handshakeTransport).readPacket
func readPacket(t unsafe.Pointer) ([]byte, error)
