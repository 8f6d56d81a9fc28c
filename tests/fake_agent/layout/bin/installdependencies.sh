#!/bin/bash
# The real script installs the .NET runtime's libraries; the stand-in needs none.

if [ "$(id -u)" -ne 0 ]; then
    echo "Need to run with sudo privilege"
    exit 1
fi
echo "Would install: libicu, libssl, libkrb5, liblttng-ust, zlib"
echo "-----------------------------"
echo " Finish Install Dependencies"
echo "-----------------------------"
