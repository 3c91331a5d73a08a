//go:build integration

package docs_test

// furnish makes the machine: $1 is a directory of its own, $2 the repository.
const furnish = `
s=$1 r=$2
exec 8< "$s/script"
mount --make-rprivate /
mount -t tmpfs tmpfs "$s"
mkdir "$s/up" "$s/work" "$s/root" "$s/up2" "$s/work2"
mount -t overlay overlay -o "lowerdir=/,upperdir=$s/up,workdir=$s/work" "$s/root" || exit 3
mkdir -p "$s/root$r"
mount -t overlay overlay -o "lowerdir=$r,upperdir=$s/up2,workdir=$s/work2" "$s/root$r" || exit 3
mount --rbind /dev "$s/root/dev"
mount -t proc proc "$s/root/proc"
mount --rbind /sys "$s/root/sys"
mount -t tmpfs -o mode=0755 tmpfs "$s/root/run"
ip link set lo up
cat <&8 > "$s/root/run/script"
exec chroot "$s/root" bash -euo pipefail -c 'cd "$1" && . /run/script' scene "$r" < /dev/null
`

// prelude has what scenes share.
const prelude = `
fail() { echo "$*" >&2; exit 1; }
has() { grep "$@" > /dev/null; } # reads all, so that no program writes into a closed pipe
await() { # WORDS...: until they succeed
	local n
	for n in $(seq 300); do
		if "$@" 2> /run/await; then return; fi
		sleep 0.1
	done
	cat /run/await >&2
	fail "in vain: $*"
}
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH
printf '127.0.0.1 localhost nms.example.net device-1\n' > /etc/hosts
for f in passwd group shadow gshadow; do sed -i '/^netconf:/d; /^callhome:/d' /etc/$f; done
rm -rf /home/netconf /etc/callhome /tmp/ncxserver.sock
mkdir -p /root/.ssh
rm -f /root/.ssh/known_hosts
ssh-keygen -A > /dev/null
build() {
	if [ -n "${CALLHOME_BIN_DIR:-}" ]; then
		mkdir -p bin
		[ "$CALLHOME_BIN_DIR" -ef bin ] || cp "$CALLHOME_BIN_DIR"/callhome-* bin/
		return
	fi
	make -s build > /run/build 2>&1 || { cat /run/build; exit 1; }
}
listener() { CGO_ENABLED=0 go build -o /usr/local/bin/ ./test/integration/clients/fdpass-listen; }
netconfd_answers() { test -S "${1:-/tmp/ncxserver.sock}"; }
netconf_user() {
	useradd -m -s /bin/sh netconf
	install -d -m 0700 -o netconf -g netconf ~netconf/.ssh
	ssh-keygen -q -t ed25519 -N '' -f nms_key
	install -m 0600 -o netconf -g netconf nms_key.pub ~netconf/.ssh/authorized_keys
}
install_all() {
	build
	install -m 0755 bin/callhome-trigger bin/callhome-mgr /usr/sbin/
	install -m 0755 bin/callhome-nms /usr/bin/
	install -D -m 0644 packaging/sshd_config /etc/callhome/sshd_config
	install -m 0644 packaging/trigger.conf /etc/callhome/trigger.conf
	groupadd -r callhome
	netconf_user
}
hello='<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities><capability>urn:ietf:params:netconf:base:1.0</capability></capabilities></hello>]]>]]>'
bye='<rpc xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="1"><close-session/></rpc>]]>]]>'
said() { grep -q "$2" "$1"; }
# One step after the other, as netconfd wants it.
talk() { # FILE: what the other end has said
	echo "$hello"
	await said "$1" ']]>]]>'
	sleep 0.3
	echo "$bye"
	await said "$1" '<ok'
}
# station [USER KEY]: a NETCONF client that waits for one call, says hello and bye.
station() {
	: > /run/station
	talk /run/station | ssh -F none -s -i "${2:-nms_key}" -o ProxyUseFdpass=yes -o ProxyCommand='fdpass-listen 127.0.0.1:4334' \
		-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "${1:-netconf}@device-1" netconf > /run/station 2> /run/station.err
}
listening() { ss -Hltn "sport = :4334" | has .; }
my_netconf() {
	install -d /usr/local/sbin
	printf '#!/bin/sh\nprintf "%%s]]>]]>" "<hello xmlns=\\"urn:ietf:params:xml:ns:netconf:base:1.0\\"/>"\nexec cat > /dev/null\n' > /usr/local/sbin/my-netconf
	chmod 755 /usr/local/sbin/my-netconf
	echo CALLHOME_SUBSYSTEM=/usr/local/sbin/my-netconf >> /etc/callhome/trigger.conf
}
# held USER: a station that stays until its input ends.
held() {
	sleep 60 | ssh -F none -s -i nms_key -o ProxyUseFdpass=yes -o ProxyCommand='fdpass-listen 127.0.0.1:4334' \
		-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR netconf@device-1 netconf > /run/station 2>&1 || :
}
# dhcp_server HEX HEX: one that answers on the link to dhcp0, with options 43 and 143.
dhcp_server() {
	ip link add dhcp0 type veth peer name dhcp1
	ip addr add 192.0.2.254/24 dev dhcp1
	ip link set dhcp0 up
	ip link set dhcp1 up
	cat > /run/dhcp.py <<'END'
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"dhcp1")
s.bind(("", 67))
vendor, redirect = bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2])
print("ready", flush=True)
while True:
    q = s.recv(2048)
    kind = q[q.index(b"\x35\x01", 240) + 2]
    asked = 1 if b"o-ran-ru2/" in q else 0
    def option(code, value): return bytes([code, len(value)]) + value
    a = bytes([2, 1, 6, 0]) + q[4:8] + bytes(2) + b"\x80\x00" + bytes(4) + socket.inet_aton("192.0.2.7") + bytes(8) + q[28:44] + bytes(192) + q[236:240]
    a += option(53, bytes([2 if kind == 1 else 5])) + option(54, socket.inet_aton("192.0.2.254")) + option(51, (600).to_bytes(4, "big")) + option(1, socket.inet_aton("255.255.255.0"))
    if asked:
        a += option(43, vendor) + option(143, redirect)
    s.sendto(a + b"\xff" + bytes(60), ("255.255.255.255", 68))
END
	/usr/bin/python3 /run/dhcp.py "$1" "$2" > /run/dhcp.log 2>&1 &
	await said /run/dhcp.log ready
}
manager() {
	callhome-mgr run > /run/mgr.log 2>&1 &
	await callhome-mgr status > /dev/null
}
`

// scenes are what stands around the blocks of the documents, by document and
// name. "@1" is the first block.
var scenes = map[string]string{
	"README.md demo": `
@1
`,
	"docs/install.md device": `
ssh-keygen -q -t ed25519 -N '' -f nms_key
@1
@2
await netconfd_answers
@3
listener
station & pid=$!
await listening
{
@4
} || status=$?
wait $pid || { cat /run/station.err /run/callhome/log/*; fail "the station saw no NETCONF server"; }
said /run/station '<hello' || fail "no hello"
`,
	"docs/install.md bare": `
install_all
my_netconf
rm -r /etc/callhome
listener
held &
await listening
@1
await said /run/station '<hello'
`,
	"docs/install.md without-root": `
install_all
my_netconf
usermod -d /run/home netconf
install -d -m 0700 -o netconf -g netconf /run/home /run/home/.ssh
install -m 0600 -o netconf nms_key.pub /run/home/.ssh/authorized_keys
listener
held &
await listening
cat > /run/block <<'END'
@1
END
chmod 644 /run/block
setpriv --reuid netconf --regid netconf --clear-groups env HOME=/run/home USER=netconf sh -eu /run/block &
await said /run/station '<hello'
`,
	"docs/install.md station": `
install_all
my_netconf
cp /etc/ssh/ssh_host_ed25519_key.pub .
cat > /run/block <<'END'
@1
END
( sleep 60 | bash -eu /run/block > /run/station 2>&1 ) &
await listening
callhome-trigger --handover detach 127.0.0.1
await said /run/station '<hello'
`,
	"docs/install.md daemon": `
install_all
my_netconf
listener
held &
await listening
@1
await callhome-mgr status > /dev/null
@2
held &
await listening
{
@3
} | tee /run/answer
said /run/answer '"result":{"session":2'
`,
	"docs/install.md install": `
install_all
groupdel callhome
@1
getent group callhome | has netconf
`,
	"docs/api.md by-hand": `
install_all
my_netconf
manager
@1
`,
	"docs/config.md configure": `
install_all
my_netconf
manager
@1
callhome-mgr status | has 'nms.example.net' || fail "the client is not there"
`,
	"docs/operations.md metrics": `
install_all
callhome-mgr run --metrics unix:/run/callhome/metrics.sock > /run/mgr.log 2>&1 &
await callhome-mgr status > /dev/null
{
@1
} > /run/metrics
said /run/metrics callhome_build_info
`,
	"docs/operations.md hook": `
@file /run/hook 1
printf '#!/bin/sh\necho "$@" >> /run/logged\n' > /usr/local/sbin/logger
chmod 755 /run/hook /usr/local/sbin/logger
event='{"session":{"user":"netop","remote":"192.0.2.1:4334","host":"nms","stage":"tcp","cause":"$(touch /run/pwned) refused"}}'
for e in authenticated failed closed; do echo "$event" | CALLHOME_EVENT=$e /run/hook; done
diff /run/logged - <<'END'
-t callhome -p daemon.notice -- netop logged in from 192.0.2.1:4334
-t callhome -p daemon.warning -- nms not reached: tcp, $(touch /run/pwned) refused
END
test ! -e /run/pwned
`,
	"docs/confd.md preset": `
install_all
@file /etc/callhome/trigger.conf 1
callhome-trigger --show-config | has '^subsystem .*"/usr/local/bin/netconf-subsys"'
`,
	"docs/clixon.md preset": `
install_all
@file /etc/callhome/trigger.conf 1
callhome-trigger --show-config | has '^subsystem .*"/usr/local/bin/clixon_netconf"'
`,
	"docs/clixon.md setting": `
install_all
@file /etc/callhome/trigger.conf 1
callhome-trigger --show-config | has '^subsystem .*"/usr/local/bin/clixon_netconf -f /usr/local/etc/clixon/example.xml"'
`,
	"docs/yuma.md yuma": `
install_all
@1
await netconfd_answers
@file /etc/callhome/trigger.conf 2
callhome-trigger --check
listener
station & pid=$!
await listening
callhome-trigger --handover detach nms.example.net
wait $pid
`,
	"docs/yuma.md several": `
install_all
@1
await netconfd_answers /run/second.sock
@2
`,
	"docs/own-server.md subsystem": `
install_all
@file /etc/callhome/trigger.conf 1
@2
listener
held &
await listening
callhome-trigger --handover detach nms.example.net
await said /run/station '<hello'
`,
	"docs/own-server.md ask": `
install_all
my_netconf
listener
manager
held & await listening
@1
held & await listening
@2
held & await listening
@3
held & await listening
@4
callhome-mgr sessions | grep -c 'serving' | has -x 4
`,
	"docs/management.md ssh": `
install_all
my_netconf
listener
cp /etc/ssh/ssh_host_ed25519_key.pub .
cat > /run/block <<'END'
@1
END
( sleep 60 | bash -eu /run/block > /run/station 2>&1 ) &
await listening
callhome-trigger --handover detach 127.0.0.1
await said /run/station '<hello'
`,
	// With a server of our own, as netconfd forgets a request that follows its
	// hello too closely.
	"docs/management.md ncclient": `
install_all
cat > /usr/local/sbin/answers <<'END'
#!/usr/bin/python3
import re, sys
def say(xml):
    sys.stdout.write(xml + "]]>]]>")
    sys.stdout.flush()
say('<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities><capability>urn:ietf:params:netconf:base:1.0</capability></capabilities><session-id>1</session-id></hello>')
said = ""
while True:
    c = sys.stdin.read(1)
    if not c:
        break
    said += c
    if said.endswith("]]>]]>"):
        rpc = re.search('message-id="([^"]+)"', said)
        if rpc:
            say('<rpc-reply xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="%s">%s</rpc-reply>' % (rpc.group(1), "<data/>" if "get-config" in said else "<ok/>"))
        said = ""
END
chmod 755 /usr/local/sbin/answers
echo CALLHOME_SUBSYSTEM=/usr/local/sbin/answers >> /etc/callhome/trigger.conf
cp /etc/ssh/ssh_host_ed25519_key.pub .
cat > /run/block <<'END'
@1
END
bash -eu /run/block > /run/station 2>&1 & pid=$!
await listening
callhome-trigger --handover detach 127.0.0.1
wait $pid || { cat /run/station; fail "ncclient"; }
said /run/station '<data'
# A device with another key is not let in, nor asked anything.
ssh-keygen -q -t ed25519 -N '' -f other
cp other.pub ssh_host_ed25519_key.pub
sed 's/4334/4335/' /run/block > /run/wrong
bash -eu /run/wrong > /run/station 2>&1 & pid=$!
listening_on() { ss -Hltn "sport = :$1" | has .; }
await listening_on 4335
callhome-trigger --handover detach 127.0.0.1 4335
if wait $pid; then fail "ncclient took another key"; fi
said /run/station 'Unknown host key' || { cat /run/station; exit 1; }
`,
	"docs/oran.md install": `
@1
@2
printf 'CALLHOME_DHCP_MODE=print\nCALLHOME_DHCP_OPTIONS=43 143\n' > /etc/callhome/dhcp.conf
@file /etc/dhcp/dhclient.conf 3
printf 'option sztp-redirect code 143 = string;\nalso request sztp-redirect;\n' >> /etc/dhcp/dhclient.conf
dhcp_server 8108c0000201c0000202820b736d6f2e6578616d706c65860100 001468747470733a2f2f737a74702e6578616d706c65
dhclient -d -1 -cf /etc/dhcp/dhclient.conf -lf /run/leases -pf /run/dhclient.pid dhcp0 > /run/dhclient 2>&1 &
await grep -qx 192.0.2.2 /run/dhclient || { cat /run/dhclient; exit 1; }
grep -qx 192.0.2.1 /run/dhclient
await grep -qx sztp.example /run/dhclient || { cat /run/dhclient; exit 1; }
`,
	"docs/oran.md print": `
install_all
install -D -m 0755 packaging/dhcp/callhome-dhcp /usr/lib/callhome/callhome-dhcp
mkdir -p /var/lib/callhome
{
@1
} > /run/printed
printf '192.0.2.1\nsmo.example\n' | diff - /run/printed
# And what the daemon makes of it.
manager
userdel netconf 2> /dev/null || true
{
@2
} > /run/checked || { cat /run/checked; exit 1; }
said /run/checked '^client 192.0.2.1: persistent' && said /run/checked '^  user netconf, with ssh-ed25519 SHA256:' || { cat /run/checked; exit 1; }
/usr/lib/callhome/callhome-dhcp eth0 8108c0000201c0000202
callhome-mgr status > /run/status
said /run/status '^192.0.2.1 ' && said /run/status '^192.0.2.2 ' || { cat /run/status; exit 1; }
test "$(stat -c %a /etc/callhome/callhome.json)" = 600
`,
	"docs/oran.md networkd": `
install -D -m 0755 -t /usr/lib/callhome packaging/dhcp/callhome-dhcp packaging/dhcp/networkd-hook
mkdir -p /etc/callhome /run/systemd/netif/leases
echo CALLHOME_DHCP_MODE=print > /etc/callhome/dhcp.conf
@1
@2
printf 'ADDRESS=192.0.2.7\nVENDOR_SPECIFIC=8104c0000201\n' > /run/systemd/netif/leases/1
printf 'VENDOR_SPECIFIC=8104c0000202\n' > /run/systemd/netif/leases/99999
/etc/networkd-dispatcher/routable.d/callhome | has -x 192.0.2.1
/etc/networkd-dispatcher/routable.d/callhome | wc -l | has -x 1
! command -v systemd-analyze > /dev/null || systemd-analyze verify /etc/systemd/system/callhome-dhcp.path
`,
	"docs/oran.md udhcpc": `
install -D -m 0755 -t /usr/lib/callhome packaging/dhcp/callhome-dhcp packaging/dhcp/udhcpc-hook
mkdir -p /etc/callhome
printf 'CALLHOME_DHCP_MODE=print\nCALLHOME_DHCP_OPTIONS=43 143\n' > /etc/callhome/dhcp.conf
@1
dhcp_server 8108c0000201c0000202820b736d6f2e6578616d706c65860100 001468747470733a2f2f737a74702e6578616d706c65
printf '#!/bin/sh\nenv > /run/udhcpc.env\n. /etc/udhcpc.user.d/callhome\n' > /run/udhcpc.script
chmod 755 /run/udhcpc.script
{ echo "exec busybox \\"; sed 's/eth0/dhcp0/; s/$/ -O 143 -f -q -n -s \/run\/udhcpc.script/' <<'END'; } > /run/udhcpc.sh
@2
END
sh /run/udhcpc.sh > /run/udhcpc 2>&1 || { cat /run/udhcpc; exit 1; }
await grep -qx 192.0.2.2 /run/udhcpc || { cat /run/udhcpc /run/udhcpc.env; exit 1; }
await grep -qx sztp.example /run/udhcpc || { cat /run/udhcpc /run/udhcpc.env; exit 1; }
`,
	"docs/install.md standing": `
install_all
useradd -m -s /bin/sh netop
install -d -m 0700 -o netop -g netop ~netop/.ssh
install -m 0600 -o netop -g netop nms_key.pub ~netop/.ssh/authorized_keys
@1
await callhome-mgr status > /dev/null
{
@2
} > /run/status
said /run/status '^nms '
`,
	"docs/operations.md standing": `
install_all
useradd -m -s /bin/sh netop
install -d -m 0700 -o netop -g netop ~netop/.ssh
install -m 0600 -o netop -g netop nms_key.pub ~netop/.ssh/authorized_keys
manager
@1
@2
callhome-mgr reload
callhome-mgr status | has '^nms '
`,
	"docs/operations.md group": `
install_all
groupadd -f -r prometheus   # a machine with Debian's prometheus has it
cat > /run/block <<'END'
@1
END
bash -eu /run/block > /run/mgr.log 2>&1 &
await test -S /run/callhome-metrics/socket
`,
	"docs/nms.md ssh": `
install_all
my_netconf
@file /root/.ssh/config 1
chmod 600 /root/.ssh/config
sed 's/^/edge7 /' /etc/ssh/ssh_host_ed25519_key.pub > /root/.ssh/known_hosts
( sleep 60 | ssh -l netconf -i nms_key edge7 -s netconf > /run/station 2>&1 ) &
await listening
callhome-trigger --device-id edge7 --handover detach nms.example.net
await said /run/station '<hello'
`,
	"docs/cluster.md two-stations": `
install_all
echo CALLHOME_NETCONF_SERVER=yuma >> /etc/callhome/trigger.conf
netconfd --port=830 --superuser=netconf --log=/var/log/netconfd.log > /dev/null 2>&1 &
await netconfd_answers
mkdir /run/try && cd /run/try
@1
await callhome-nms status --socket south/nms.sock > /dev/null
both() { callhome-nms status --socket south/nms.sock > /run/status && [ "$(grep -c alive /run/status)" = 2 ]; }
await both
cat id_ed25519.pub > ~netconf/.ssh/authorized_keys
callhome-trigger --handover detach nms.example.net
key=$(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2)
listed() { callhome-nms devices --socket south/nms.sock > /run/devices && said /run/devices "$key.* north "; }
await listed
@2
callhome-trigger --handover detach nms.example.net
connected() { callhome-nms devices --socket south/nms.sock > /run/devices && said /run/devices '^edge7 *connected.* north '; }
await connected
@3
`,
	"docs/nms-serve.md serve": `
install_all
groupadd -r callhome-nms
useradd -r -g callhome-nms callhome-nms
echo CALLHOME_NETCONF_SERVER=yuma >> /etc/callhome/trigger.conf
netconfd --port=830 --superuser=netconf --log=/var/log/netconfd.log > /dev/null 2>&1 &
await netconfd_answers
cat > /run/block <<'END'
@1
END
bash -eu /run/block > /run/serve 2>&1 &
await listening
await callhome-nms devices > /dev/null
cat /etc/callhome-nms/id_ed25519.pub > ~netconf/.ssh/authorized_keys
callhome-trigger --handover detach nms.example.net
key=$(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2)
await callhome-nms devices adopt "$key" --id edge7
device_is() { callhome-nms devices > /run/devices && said /run/devices "^edge7 *$1"; }
device_is connected || callhome-trigger --handover detach nms.example.net
await device_is connected
@2
@3
callhome-nms status | has 'no device is connected'
callhome-nms events | has ' drained'
! listening
`,
	"examples/README.md documents": `
install_all
{
@1
} | grep -c '^client nms: ' | has -x 3
`,
	"examples/README.md hook": `
install_all
my_netconf
printf '#!/bin/sh\necho "$@" >> /run/logged\n' > /usr/local/bin/logger
chmod 755 /usr/local/bin/logger
@1
await callhome-mgr status > /dev/null
callhome-mgr call 127.0.0.1 9 || :
await grep -q -- '-t callhome -p daemon.warning -- 127.0.0.1 not reached: tcp, ' /run/logged
`,
	"examples/README.md ssh": `
install_all
my_netconf
sed 's/^/edge7 /' /etc/ssh/ssh_host_ed25519_key.pub > /root/.ssh/known_hosts
rm -f /root/.ssh/config
cat > /run/block <<'END'
@1
END
( umask 077; sleep 60 | bash -eu /run/block > /run/station 2>&1 ) &
await listening
callhome-trigger --device-id edge7 --handover detach nms.example.net
await said /run/station '<hello'
`,
	"examples/README.md ncclient": `
install_all
echo CALLHOME_NETCONF_SERVER=yuma >> /etc/callhome/trigger.conf
netconfd --port=830 --superuser=netconf --log=/var/log/netconfd.log > /dev/null 2>&1 &
await netconfd_answers
cp /etc/ssh/ssh_host_ed25519_key.pub .
cat > /run/block <<'END'
@1
END
bash -eu /run/block > /run/station 2>&1 & pid=$!
await listening
callhome-trigger --handover detach 127.0.0.1
wait $pid || { cat /run/station; fail "ncclient"; }
said /run/station '<data'
`,
	"examples/README.md ask": `
install_all
my_netconf
listener
manager
held & await listening
@1
held & await listening
@2
callhome-mgr sessions | grep -c 'serving' | has -x 2
`,
}
