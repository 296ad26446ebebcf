#!/bin/sh
# Installs the Debian packages given as arguments; root or sudo is needed only when one is missing.
set -eu
SUDO=; [ "$(id -u)" = 0 ] || SUDO=sudo
$SUDO apt-get update -qq
DEBIAN_FRONTEND=noninteractive $SUDO apt-get install -y -qq --no-install-recommends "$@" >/dev/null
