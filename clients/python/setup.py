# SPDX-License-Identifier: Apache-2.0
"""Packaging of the one module; it may as well be copied."""
from setuptools import setup

setup(
    name="callhome",
    version="0.1.0",
    description="Ask callhome-mgr for NETCONF SSH call homes (RFC 8071)",
    license="Apache-2.0",
    py_modules=["callhome"],
    python_requires=">=3.6",
)
