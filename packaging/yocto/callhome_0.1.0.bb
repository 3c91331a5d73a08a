SUMMARY = "NETCONF SSH Call Home (RFC 8071) for devices whose SSH server is OpenSSH"
DESCRIPTION = "callhome-trigger makes one call home and hands the socket to sshd -i; \
callhome-mgr makes and supervises calls, and keeps standing connections."
SECTION = "net"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://src/callhome/LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# go.mod needs Go 1.26: set GOVERSION to 1.26 or later, from a layer that has
# it. An older one stops with "go.mod requires go >= 1.26.0".
# A release's source, callhome-0.1.0.tar.gz, as `make release` makes it, beside
# this file or in files/. For a build without network: `go mod vendor` in it first, and
# GOBUILDFLAGS:append = " -mod=vendor".
SRC_URI = "file://callhome-${PV}.tar.gz;subdir=src"
S = "${WORKDIR}/callhome-${PV}"

GO_IMPORT = "callhome"
# callhome-trigger is the same program under that name.
GO_INSTALL = "${GO_IMPORT}/cmd/callhome-mgr"

inherit go-mod systemd useradd update-rc.d

# Metrics cost 2 MB of flash: PACKAGECONFIG:append = " metrics".
PACKAGECONFIG ??= ""
PACKAGECONFIG[metrics] = ",,,"
CALLHOME_TAGS = "urfave_cli_no_docs,urfave_cli_no_suggest,nethttpomithttp2"
CALLHOME_TAGS:append = "${@bb.utils.contains('PACKAGECONFIG', 'metrics', '', ',nometrics', d)}"

CGO_ENABLED = "0"
GO_LINKSHARED = ""
GO_EXTRA_LDFLAGS = "-s -w -X main.version=${PV}"
GOBUILDFLAGS:append = " -tags ${CALLHOME_TAGS}"
# Go modules come over the network unless they are vendored.
do_compile[network] = "1"

do_unpack[postfuncs] += "place_source"
place_source() {
    install -d ${S}/src
    rm -rf ${S}/src/callhome
    mv ${WORKDIR}/src/callhome-${PV} ${S}/src/callhome
}

do_install:append() {
    source=${S}/src/callhome/packaging
    install -d ${D}${sbindir}
    mv ${D}${bindir}/callhome-mgr ${D}${sbindir}/
    ln -s callhome-mgr ${D}${sbindir}/callhome-trigger
    rmdir --ignore-fail-on-non-empty ${D}${bindir}
    install -d ${D}${sysconfdir}/callhome ${D}${localstatedir}/lib/callhome
    install -m 0644 $source/sshd_config $source/trigger.conf $source/mgr.conf ${D}${sysconfdir}/callhome/
    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        install -d ${D}${systemd_system_unitdir}
        install -m 0644 $source/systemd/callhome-mgr.service $source/systemd/callhome-mgr.socket ${D}${systemd_system_unitdir}/
    else
        install -D -m 0755 $source/buildroot/S95callhome-mgr ${D}${sysconfdir}/init.d/callhome-mgr
    fi
}

SYSTEMD_SERVICE:${PN} = "callhome-mgr.service callhome-mgr.socket"
INITSCRIPT_NAME = "callhome-mgr"
INITSCRIPT_PARAMS = "defaults 95 10"

USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system callhome"

CONFFILES:${PN} = "${sysconfdir}/callhome/sshd_config ${sysconfdir}/callhome/trigger.conf ${sysconfdir}/callhome/mgr.conf"
FILES:${PN} += "${systemd_system_unitdir} ${localstatedir}/lib/callhome"
RDEPENDS:${PN} = "openssh-sshd"
RDEPENDS:${PN}-dev = ""
