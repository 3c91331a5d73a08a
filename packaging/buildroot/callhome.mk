################################################################################
#
# callhome
#
################################################################################

# go.mod needs Go 1.26: use a Buildroot whose host-go is 1.26 or later. An older
# one stops with "go.mod requires go >= 1.26.0".
CALLHOME_VERSION = 0.1.0
# A release's source, callhome-0.1.0.tar.gz, as `make release` makes it, beside
# this file.
CALLHOME_SITE = $(CALLHOME_PKGDIR)
CALLHOME_SITE_METHOD = file
CALLHOME_LICENSE = Apache-2.0
CALLHOME_LICENSE_FILES = LICENSE

CALLHOME_GOMOD = callhome
# callhome-trigger is the same program under that name.
CALLHOME_BUILD_TARGETS = cmd/callhome-mgr
CALLHOME_INSTALL_BINS = callhome-mgr
CALLHOME_TAGS = urfave_cli_no_docs urfave_cli_no_suggest nethttpomithttp2
CALLHOME_LDFLAGS = -X main.version=$(CALLHOME_VERSION)
CALLHOME_GO_ENV = CGO_ENABLED=0

ifneq ($(BR2_PACKAGE_CALLHOME_METRICS),y)
CALLHOME_TAGS += nometrics
endif

# The unit and the documentation say /usr/sbin.
define CALLHOME_INSTALL_TARGET_CMDS
	$(foreach b,$(CALLHOME_INSTALL_BINS),\
		$(INSTALL) -D -m 0755 $(@D)/bin/$(b) $(TARGET_DIR)/usr/sbin/$(b)
	)
	ln -sf callhome-mgr $(TARGET_DIR)/usr/sbin/callhome-trigger
	$(INSTALL) -D -m 0644 $(@D)/packaging/sshd_config $(TARGET_DIR)/etc/callhome/sshd_config
	$(INSTALL) -D -m 0644 $(@D)/packaging/trigger.conf $(TARGET_DIR)/etc/callhome/trigger.conf
	$(INSTALL) -D -m 0644 $(@D)/packaging/mgr.conf $(TARGET_DIR)/etc/callhome/mgr.conf
	$(INSTALL) -d -m 0755 $(TARGET_DIR)/var/lib/callhome
endef

define CALLHOME_USERS
	- - callhome -1 - - - - callhome group
endef

define CALLHOME_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/packaging/systemd/callhome-mgr.service \
		$(TARGET_DIR)/usr/lib/systemd/system/callhome-mgr.service
	$(INSTALL) -D -m 0644 $(@D)/packaging/systemd/callhome-mgr.socket \
		$(TARGET_DIR)/usr/lib/systemd/system/callhome-mgr.socket
endef

define CALLHOME_INSTALL_INIT_OPENRC
	$(INSTALL) -D -m 0755 $(@D)/packaging/openrc/callhome-mgr $(TARGET_DIR)/etc/init.d/callhome-mgr
endef

define CALLHOME_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/packaging/buildroot/S95callhome-mgr $(TARGET_DIR)/etc/init.d/S95callhome-mgr
endef

$(eval $(golang-package))
