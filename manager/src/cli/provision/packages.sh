# Installs packages by the board's own apt. Arguments: their names.
exec 2>&1 </dev/null
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
# What a power cut left half installed is finished first.
dpkg --force-confold --configure -a
apt-get update -q
apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@"
