#!/bin/bash
# Installs, upgrades, removes and purges the packages in a Debian of their own, and looks at what that did.
#
#   cross/test-packages.sh      (root; packages debootstrapped by mmdebstrap are kept in target/)
#
# The programs in them are this machine's debug builds: what is tested is the packages. systemd is not run there;
# a stand-in for systemctl writes down what the scripts ask of it.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" -eq 0 ] || { echo "cross/test-packages.sh: needs root" >&2; exit 1; }
for program in mmdebstrap lintian; do
  command -v "$program" >/dev/null || { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap lintian; }
done
targets=${CARGO_TARGET_DIR:-$PWD/target}
place=$targets/test-packages
root=$place/root
rm -rf "$place"
mkdir -p "$place"
trap 'rm -rf "$place"' EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }
# is WHAT COMMAND…: the command succeeds.
is() { local what=$1; shift; "$@" >/dev/null 2>&1 || fail "$what: $*"; echo "  ok: $what"; }
# not WHAT COMMAND…
isnt() { local what=$1; shift; ! "$@" >/dev/null 2>&1 || fail "$what: $*"; echo "  ok: $what"; }

echo "packages of versions 0.1.0 and 0.1.1, twice"
target=x86_64-unknown-linux-musl
mkdir -p "$place/cross/$target/release"
for program in pi-agent pi-mgr; do strip -o "$place/cross/$target/release/$program" "$targets/debug/$program"; done
# One build of the pages; what is compared is the packing, not how small it gets. Who has set no MAINTAINER packs for
# himself, and lintian wants an address that others can write to.
export DPKG_DEB_COMPRESSOR_LEVEL=0 MAINTAINER='Racimo <racimo@example.org>'
pack() { VERSION=$1 RACIMO_DIST=$2 RACIMO_BUILT=$place/cross cross/dist.sh "$target" >/dev/null; }
pack 0.1.0 "$place/one"
sleep 1.1 # other times of files
pack 0.1.0 "$place/two"
pack 0.1.1 "$place/one"
is "the same sources give the same packages" cmp "$place/one/pi-agent_0.1.0_amd64.deb" "$place/two/pi-agent_0.1.0_amd64.deb"
is "and tarballs" cmp "$place"/{one,two}/racimo-0.1.0-"$target".tar.gz
is "sums are right" sh -c "cd '$place/one' && sha256sum -c SHA256SUMS"
[ -z "$(dpkg-deb -c "$place/one/pi-agent_0.1.0_amd64.deb" | grep -v root/root)" ] || fail "a file is not root's"
# The debug builds are no static programs, and Debian's archive is not where these packages go.
lintian --fail-on error --suppress-tags bad-distribution-in-changes-file,unused-override,mismatched-override,missing-dependency-on-libc \
  "$place"/one/*_0.1.0_*.deb || fail "lintian"

# This machine's programs are not made for pages of 64 KiB.
mkdir -p "$place/cross/aarch64-unknown-linux-musl"
cp -r "$place/cross/$target/release" "$place/cross/aarch64-unknown-linux-musl/"
isnt "programs for ARM64 that want pages of 4 KiB are not packed" env RACIMO_DIST="$place/three" RACIMO_BUILT="$place/cross" \
  cross/dist.sh aarch64-unknown-linux-musl

echo "a Debian to install them in"
base=$targets/test-packages-base.tar
if [ ! -f "$base" ]; then
  # Under another name until it is whole.
  mmdebstrap --quiet --variant=minbase --include=adduser,containerd,init-system-helpers,ca-certificates bookworm "$targets/test-packages-new.tar"
  mv "$targets/test-packages-new.tar" "$base"
fi
mkdir "$root"
tar -C "$root" -xf "$base" --exclude='./dev/*'
mknod -m 666 "$root/dev/null" c 1 3
mkdir -p "$root/run/systemd/system"
cat >"$root/usr/bin/systemctl" <<'SH'
#!/bin/sh
# What was asked, and answers as of a running system whose units are as their links say.
echo "$*" >>/systemctl.log
case "$*" in
  *is-enabled*) [ -e "/etc/systemd/system/multi-user.target.wants/${*##* }" ] && echo enabled || { echo disabled; exit 1; } ;;
  *' preset '*)
    unit=${*##* }
    for target in $(sed -n 's/^WantedBy=//p' "/usr/lib/systemd/system/$unit"); do
      mkdir -p "/etc/systemd/system/$target.wants"
      ln -sf "/usr/lib/systemd/system/$unit" "/etc/systemd/system/$target.wants/$unit"
    done ;;
  *show*) echo loaded ;;
esac
SH
chmod 755 "$root/usr/bin/systemctl"
cp "$place"/one/*.deb "$root/"
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }
# asked PATTERN: systemctl was asked so since the last `forget`.
asked() { grep -Eq -- "$1" "$root/systemctl.log"; }
forget() { : >"$root/systemctl.log"; }
install_version() { in_root dpkg -i "/pi-agent_$1_amd64.deb" "/pi-mgr_$1_amd64.deb" </dev/null >"$place/dpkg.log" 2>&1 || { cat "$place/dpkg.log"; fail "dpkg -i $1"; }; }
wants=$root/etc/systemd/system/multi-user.target.wants

echo "install"
forget
install_version 0.1.0
for program in pi-agent pi-mgr; do
  is "$program runs" in_root "$program" version --help
  is "$program is enabled" test -L "$wants/$program.service"
  is "$program is started" asked "start $program.service"
  is "$program has a manual page" sh -c "ls '$root/usr/share/man'/man[18]/$program.[18].gz"
  is "$program completes" test -s "$root/usr/share/bash-completion/completions/$program"
  is "$program names licences" sh -c "zcat '$root/usr/share/doc/$program/LICENSES.gz' | grep -q '^  ring '"
done
is "the group racimo is there" grep -q '^racimo:' "$root/etc/group"
is "the agent's configuration is right" in_root env RACIMO_CONFIG=/etc/racimo/agent.toml pi-agent leave --help

echo "upgrade"
mkdir -p "$root/var/lib/racimo/agent" "$root/var/lib/racimo/manager"
touch "$root/var/lib/racimo/agent/volume" "$root/var/lib/racimo/manager/store"
echo 'max-tasks = 7' >>"$root/etc/racimo/agent.toml"
rm "$wants/pi-mgr.service" # as `systemctl disable` does
forget
install_version 0.1.1
is "the agent is restarted" asked "restart pi-agent.service"
isnt "nothing is stopped at an upgrade" asked "(^| )(stop|kill)( |$)"
isnt "only our own units are touched" asked "(re)?start (containerd|docker)"
is "an edited configuration stays" grep -q 'max-tasks = 7' "$root/etc/racimo/agent.toml"
isnt "what was disabled stays so" test -e "$wants/pi-mgr.service"

echo "remove"
forget
in_root dpkg -r pi-agent pi-mgr >/dev/null 2>&1
is "the agent is stopped" asked "stop pi-agent.service"
isnt "the program is gone" test -e "$root/usr/bin/pi-agent"
is "its configuration stays" test -e "$root/etc/racimo/agent.toml"

echo "purge"
said=$(in_root dpkg -P pi-agent pi-mgr 2>&1)
isnt "the configuration is gone" test -e "$root/etc/racimo/agent.toml"
isnt "no link of a unit stays" sh -c "find '$root/etc/systemd' -name 'pi-*' | grep ."
is "volumes stay" test -e "$root/var/lib/racimo/agent/volume"
is "the cluster stays" test -e "$root/var/lib/racimo/manager/store"
is "and it says so" grep -q 'agent stays' <<<"$said"
echo "test-packages: passed"
