#!/bin/bash
# Packs what cross/build.sh has built: a tarball and, where Debian has the architecture, packages.
#
#   cross/dist.sh TARGET…      → $CARGO_TARGET_DIR/dist/{racimo-VERSION-TARGET.tar.gz,pi-*.deb,SHA256SUMS}
#
# The same sources give the same bytes: all dates are SOURCE_DATE_EPOCH, by default that of the last commit. VERSION,
# MAINTAINER and PROGRAMS ("pi-agent") may be set.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || { echo "usage: cross/dist.sh TARGET…" >&2; exit 1; }
command -v dpkg-deb >/dev/null || { echo "cross/dist.sh: dpkg-deb is missing: apt-get install dpkg" >&2; exit 1; }
version=${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)}
maintainer=${MAINTAINER:-Racimo <racimo@localhost>}
homepage=${HOMEPAGE:-https://localhost/racimo}
umask 022

targets=${CARGO_TARGET_DIR:-$PWD/target}
built_in=${RACIMO_BUILT:-$targets/cross} # tests pack other programs
dist=${RACIMO_DIST:-$targets/dist}
mkdir -p "$dist"
work=$(mktemp -d "$targets/dist-work.XXXXXX")
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT

# Manual pages and completions are the same for every target.
CARGO_TARGET_DIR=$targets ${CARGO:-cargo} run --quiet --locked -p racimo-manager --example pages -- "$work/pages"
# Not before: a build with another date is another build.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# into FILE MODE SOURCE: a file below $root.
into() { install -D -m "$2" "$3" "$root/$1"; }
# pages_of PROGRAM SECTION: its manual pages and completions, as Debian lays them out.
pages_of() {
  local page
  for page in "$work/pages/man/$1".$2 "$work/pages/man/$1"-*."$2"; do
    into "usr/share/man/man$2/${page##*/}" 644 "$page"
  done
  into "usr/share/bash-completion/completions/$1" 644 "$work/pages/bash/$1.bash"
  into "usr/share/zsh/vendor-completions/_$1" 644 "$work/pages/zsh/_$1"
  into "usr/share/fish/vendor_completions.d/$1.fish" 644 "$work/pages/fish/$1.fish"
}
# settle DIRECTORY: nothing of the builder is left in the files' dates.
settle() { find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +; }

# The parts of an installation of PROGRAM below $root.
lay() {
  into "usr/bin/$1" 755 "$built/$1"
  into "usr/lib/systemd/system/$1.service" 644 "images/systemd/$1.service"
  case $1 in
    pi-agent)
      into etc/racimo/agent.toml 644 images/config/agent.toml
      pages_of pi-agent 8
      # How other programs of the board are kept away from our links: images/README.md. They are vendor files here.
      local file
      for file in NetworkManager/conf.d/90-racimo.conf systemd/network/05-racimo.network systemd/network/05-racimo.link \
        systemd/networkd.conf.d/90-racimo.conf sysctl.d/90-racimo.conf modules-load.d/racimo.conf; do
        into "usr/lib/$file" 644 "images/files/etc/$file"
      done
      ;;
    pi-mgr)
      into etc/racimo/manager.toml 644 images/config/manager.toml
      pages_of pi-mgr 1
      ;;
  esac
}

# fill FILE: a template, its @WORDS@ replaced.
fill() {
  python3 - "$1" "PACKAGE=$program" "UNIT=$program.service" "VERSION=$version" "ARCH=$arch" "MAINTAINER=$maintainer" \
    "HOMEPAGE=$homepage" "SIZE=${size:-0}" "CONFIGURE=$(cat "cross/debian/$program/configure" && echo .)" \
    "PURGE=$(cat "cross/debian/$program/purge" && echo .)" <<'PYTHON'
import re, sys
words = dict(word.split("=", 1) for word in sys.argv[2:])
# The shell drops newlines at the end, but for the dot.
words = {name: value.removesuffix(".") if name in ("CONFIGURE", "PURGE") else value for name, value in words.items()}
print(re.sub("@([A-Z]+)@", lambda found: words[found[1]], open(sys.argv[1]).read()), end="")
PYTHON
}

package() {
  program=$1
  root=$work/$program-$arch
  lay "$program"
  local doc=$root/usr/share/doc/$program
  mkdir -p "$doc" "$root/DEBIAN" "$root/usr/share/lintian/overrides"
  gzip -9n <"$work/LICENSES-$target-$program" >"$doc/LICENSES.gz"
  fill cross/debian/copyright >"$doc/copyright"
  printf 'racimo (%s) unstable; urgency=medium\n\n  * See /usr/share/doc/%s/CHANGELOG.md.gz.\n\n -- %s  %s\n' \
    "$version" "$program" "$maintainer" "$(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
  gzip -9n <CHANGELOG.md >"$doc/CHANGELOG.md.gz"
  # A static program is the point: boards run it whatever C library they have.
  printf '%s: statically-linked-binary [usr/bin/%s]\n' "$program" "$program" >"$root/usr/share/lintian/overrides/$program"
  find "$root/usr/share/man" -type f -exec gzip -9n {} +
  size=$(du --apparent-size -ks --exclude=DEBIAN "$root" | cut -f1)
  fill "cross/debian/$program/control" >"$root/DEBIAN/control"
  for script in postinst prerm postrm; do
    fill "cross/debian/$script" >"$root/DEBIAN/$script"
    chmod 755 "$root/DEBIAN/$script"
  done
  (cd "$root" && find etc -type f | sort | sed 's|^|/|') >"$root/DEBIAN/conffiles"
  (cd "$root" && find usr -type f | sort | xargs md5sum) >"$root/DEBIAN/md5sums"
  settle "$root"
  dpkg-deb --root-owner-group -Zxz --build "$root" "$dist/${program}_${version}_$arch.deb" >/dev/null
  echo "dist: ${program}_${version}_$arch.deb"
}

for target in "$@"; do
  built=$built_in/$target/release
  case $target in
    armv7-*) arch=armhf programs=(pi-agent pi-mgr) ;;
    aarch64-*) arch=arm64 programs=(pi-agent pi-mgr) ;;
    x86_64-*) arch=amd64 programs=(pi-agent pi-mgr) ;;
    # Raspberry Pi OS calls ARMv6 armhf too, with other programs than Debian's: a package would be mistaken for ARMv7's.
    arm-*) arch='' programs=(pi-agent) ;;
    *) echo "cross/dist.sh: unknown target '$target'" >&2; exit 1 ;;
  esac
  read -ra programs <<<"${PROGRAMS:-${programs[*]}}"
  root=$work/racimo-$version-$target
  for program in "${programs[@]}"; do
    [ -f "$built/$program" ] || { echo "cross/dist.sh: ${built#"$PWD"/}/$program is missing: make cross TARGET=$target" >&2; exit 1; }
    [[ $target != aarch64-* ]] || cross/pages.py "$built/$program"
    case $program in pi-agent) crate=racimo-agent ;; pi-mgr) crate=racimo-manager ;; esac
    cross/licences.py "$crate" "$target" >"$work/LICENSES-$target-$program"
    lay "$program"
    into "LICENSES-$program" 644 "$work/LICENSES-$target-$program"
  done
  into LICENSE 644 LICENSE
  into README.md 644 README.md
  settle "$root"
  tar --sort=name --owner=0 --group=0 --numeric-owner --format=gnu -C "$work" -c "${root##*/}" | gzip -9n >"$dist/${root##*/}.tar.gz"
  echo "dist: ${root##*/}.tar.gz"
  [ -z "$arch" ] || for program in "${programs[@]}"; do package "$program"; done
done
(cd "$dist" && sha256sum -- *.tar.gz *.deb 2>/dev/null | sort -k2 >SHA256SUMS)
echo "dist: ${dist#"$PWD"/}/SHA256SUMS"
