#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Ask callhome-mgr for a call home, and wait until its netconf subsystem runs."""
import sys

import callhome

with callhome.Manager() as m:
    try:
        session = m.netconf_ssh_call_home_opaque(sys.argv[1], "ticket 42", wait="netconf")
        print("session", session["session"], "of", session["user"])
    except callhome.Error as e:
        raise SystemExit("%s at %s: %s" % (e.name, e.stage, e.reason))
