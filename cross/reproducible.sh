#!/bin/bash
# Builds a target twice, from copies of the sources in different directories and with different target directories,
# and compares the bytes. Takes two whole builds.
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

for copy in one/sources another/place/for/sources; do
  mkdir -p "$place/$copy"
  git ls-files -z | tar --null -T - -c | tar -x -C "$place/$copy"
  CARGO_TARGET_DIR=$place/$copy/../built "$place/$copy/cross/build.sh" "$target" "$part"
done
file=built/cross/$target/release/$binary
sha256sum "$place/one/$file" "$place/another/place/for/$file"
cmp "$place/one/$file" "$place/another/place/for/$file" && echo "reproducible: the same bytes"
