#!/bin/bash
# Builds a target twice, from copies of the sources in different directories, once with the target directory in the sources
# and once elsewhere, and compares the bytes. Takes two whole builds.
#
#   cross/reproducible.sh TARGET [agent|manager]
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:?usage: cross/reproducible.sh TARGET [agent|manager]}
part=${2:-agent}
case $part in agent) binary=pi-agent ;; manager) binary=pi-mgr ;; *) echo "cross/reproducible.sh: unknown part '$part'" >&2; exit 1 ;; esac
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

# build SOURCES BUILT: what git knows goes to SOURCES, and is built in BUILT.
build() {
  mkdir -p "$1"
  git ls-files -z | tar --null -T - -c | tar -x -C "$1"
  CARGO_TARGET_DIR=$2 "$1/cross/build.sh" "$target" "$part"
}
one=$place/one/target another=$place/another/place/for/built
build "$place/one" "$one"
build "$place/another/place/for/sources" "$another"
file=cross/$target/release/$binary
sha256sum "$one/$file" "$another/$file"
cmp "$one/$file" "$another/$file" && echo "reproducible: the same bytes"
