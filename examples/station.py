#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Wait for one call home with ncclient and print the device's configuration.

usage: station.py HOST_KEY.pub USER_KEY [PORT]

HOST_KEY.pub is the device's public host key: a device with another one is
refused. ncclient waits ten seconds for the call.
"""
import sys
import time

from ncclient import manager

host_key, user_key = sys.argv[1:3]
port = int(sys.argv[3]) if len(sys.argv) > 3 else 4334
with open(host_key, encoding="ascii") as f:
    device = f.read().split()[1]
with manager.call_home(host="0.0.0.0", port=port, username="netconf", key_filename=user_key, password="",
                       look_for_keys=False, allow_agent=False, hostkey_b64=device) as m:
    time.sleep(1)  # netconfd forgets a request that follows its hello too closely
    print(m.get_config("running").data_xml)
