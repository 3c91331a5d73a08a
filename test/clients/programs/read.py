# SPDX-License-Identifier: Apache-2.0
"""Gives each line of standard input, in hexadecimal, to the Python client's reader of
messages. A line is understood, or refused with callhome.Error; anything else is a
traceback and exit status 1. Prints how many lines were understood."""
import sys

import callhome

understood = 0
for line in sys.stdin:
    try:
        message = callhome._message(bytes.fromhex(line))
        understood += 1
    except callhome.Error:
        continue
    for reader in (callhome._event, callhome._result):
        try:
            reader(message)
        except callhome.Error as e:
            str(e)
print(understood)
