package config

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// An XML export becomes a document that Parse accepts; one with a node that no module
// has is refused with yanglint's message.
func TestConvertMakesADocumentOfXML(t *testing.T) {
	needYanglint(t)
	const export = `<netconf-server xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-server"><call-home><netconf-client>
  <name>nms</name>
  <endpoints>
    <endpoint><name>e1</name><ssh>
      <tcp-client-parameters><remote-address>192.0.2.1</remote-address></tcp-client-parameters>
      <ssh-server-parameters>
        <server-identity><host-key><name>hk</name><public-key><central-keystore-reference>genkey</central-keystore-reference></public-key></host-key></server-identity>
        <client-authentication><users><user><name>netconf</name></user></users></client-authentication>
      </ssh-server-parameters></ssh></endpoint>
    <endpoint><name>t</name><tls><tcp-client-parameters><remote-address>192.0.2.1</remote-address></tcp-client-parameters></tls></endpoint>
  </endpoints>
  <connection-type><persistent/></connection-type>
</netconf-client></call-home></netconf-server>
<keystore xmlns="urn:ietf:params:xml:ns:yang:ietf-keystore"><asymmetric-keys><asymmetric-key><name>genkey</name><hidden-private-key/></asymmetric-key></asymmetric-keys></keystore>
`
	convert := func(xml string) (string, string, error) {
		file := filepath.Join(t.TempDir(), "doc.xml")
		if err := os.WriteFile(file, []byte(xml), 0o600); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		cmd := exec.Command(yang+"convert", file)
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		return out.String(), errs.String(), err
	}
	doc, errs, err := convert(export)
	if err != nil {
		t.Fatal(errs)
	}
	// The user has neither key nor CA: convert does not validate, Parse does.
	_, faults := Parse([]byte(doc), all, Defaults{})
	if len(faults) != 1 || !strings.Contains(faults[0].Message, "the user has no way to log in") {
		t.Errorf("faults %v in\n%s", faults, doc)
	}
	c := parse(t, all, []byte(strings.Replace(doc, `"users"`, `"callhome:user-ca-keys": {"inline-definition": {"public-key": [`+publicKeyEntry("ca", wire(edKey.Public()))+`]}}, "users"`, 1)))
	if len(c.Clients) != 1 || len(c.Clients[0].Endpoints) != 1 || c.Clients[0].Endpoints[0].Users[0].Name != "netconf" || len(c.Warnings) != 1 {
		t.Errorf("%+v", c)
	}
	if _, errs, err := convert(strings.Replace(export, "<call-home>", "<call-home><colour>red</colour>", 1)); err == nil || !strings.Contains(errs, "colour") {
		t.Errorf("an unknown node: %v, %q", err, errs)
	}
}
