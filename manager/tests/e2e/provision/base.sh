#!/bin/sh
# A Debian as a new board has it: base.sh SUITE FILE. With sshd and sudo; the packages that provisioning installs are in a
# repository of its own below /repo, as boards of the lab have no other network.
set -eu
suite=$1 file=$2
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing: make deps-test" >&2; exit 1; }
hook=$(mktemp)
trap 'rm -f "$hook" "$file.new"' EXIT
cat >"$hook" <<'HOOK'
set -eu
mkdir "$1/repo"
chroot "$1" apt-get install -y -qq --no-install-recommends --download-only containerd runc crun nftables tini >/dev/null
cp "$1"/var/cache/apt/archives/*.deb "$1/repo/"
for deb in "$1"/repo/*.deb; do
  dpkg-deb -f "$deb"
  printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${deb##*/}" "$(stat -c %s "$deb")" "$(sha256sum <"$deb" | cut -d ' ' -f 1)"
done >"$1/repo/Packages"
HOOK
mmdebstrap --quiet --variant=minbase --include=openssh-server,sudo,init-system-helpers --format=tar \
  --customize-hook="sh $hook \"\$1\"" "$suite" "$file.new"
mv "$file.new" "$file"
