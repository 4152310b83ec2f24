#!/bin/sh
# Installs the gateway from a folder of wheels into /opt/keeptrusts, with no network, and adds the user it runs as.
set -eu
wheels=$1
lock=$2

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
python3 -m venv /opt/keeptrusts
pip="/opt/keeptrusts/bin/python -m pip"
$pip install --quiet --no-index --find-links "$wheels" --require-hashes -r "$lock"
$pip install --quiet --no-index --no-deps "$wheels"/keeptrusts_gateway-*.whl
# Nothing is installed into a finished image, so what installs is only one more thing to patch.
$pip uninstall --quiet --yes setuptools pip

# A number that no distribution gives out, so that a volume's owner means the same on every host.
groupadd --gid 10001 keeptrusts
useradd --uid 10001 --gid keeptrusts --home-dir /var/lib/keeptrusts --no-create-home --shell /usr/sbin/nologin keeptrusts
install -d -o keeptrusts -g keeptrusts -m 0750 /var/lib/keeptrusts
