#!/bin/sh
# Runs a command in which setup.py compiles for Linux on 64-bit ARM, with Debian's g++-aarch64-linux-gnu.
exec env CC=aarch64-linux-gnu-gcc CXX=aarch64-linux-gnu-g++ LDSHARED="aarch64-linux-gnu-gcc -shared" \
    LDCXXSHARED="aarch64-linux-gnu-g++ -shared" _PYTHON_HOST_PLATFORM=linux-aarch64 "$@"
