#!/bin/bash
# Builds programs for boards, static (musl), without Docker, and compares the agent's size with its budget.
#
#   cross/build.sh TARGET [agent|manager]      both, where the target has both
#
# What it needs is fetched where it is missing: zig from PyPI into target/, and, as root on Debian, the packages that
# cross/cargo names. The programs: target/cross/TARGET/release/pi-agent, pi-mgr.
set -euo pipefail
cd "$(dirname "$0")/.."

known=(armv7-unknown-linux-musleabihf aarch64-unknown-linux-musl arm-unknown-linux-musleabihf x86_64-unknown-linux-musl)
target=${1:?usage: cross/build.sh TARGET [agent|manager], e.g. armv7-unknown-linux-musleabihf}
[[ " ${known[*]} " == *" $target "* ]] || { echo "cross/build.sh: unknown target '$target'; known: ${known[*]}" >&2; exit 1; }
case $target in arm-*) has=(agent) ;; *) has=(agent manager) ;; esac # the manager's smallest board is ARMv7
case ${2:-} in
  '') parts=("${has[@]}") ;;
  agent | manager) parts=("$2") ;;
  *) echo "cross/build.sh: unknown part '$2'; known: agent, manager" >&2; exit 1 ;;
esac
[[ " ${has[*]} " == *" ${parts[0]} "* ]] || { echo "cross/build.sh: $target has no ${parts[0]}: only ${has[*]}" >&2; exit 1; }
budget=$((2 * 1024 * 1024)) # bytes; of the armv7 agent

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
[[ $CARGO_TARGET_DIR == /* ]] || CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR

export RACIMO_ZIG=${RACIMO_ZIG:-$CARGO_TARGET_DIR/zig-venv}
if [ ! -x "$RACIMO_ZIG/bin/cargo-zigbuild" ]; then
  echo "cross: zig and cargo-zigbuild from PyPI into $RACIMO_ZIG"
  rm -rf "$RACIMO_ZIG"
  python3 -m venv "$RACIMO_ZIG" || { echo "cross/build.sh: python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
  "$RACIMO_ZIG/bin/pip" install --quiet -r cross/tools.txt
fi

if ! { command -v rustup >/dev/null && [ -d "$(rustc --print target-libdir --target "$target" 2>/dev/null)" ]; } &&
  ! { [ -d /usr/lib/rustlib/src/rust/library ] && [ -x /usr/bin/cargo ]; }; then
  [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || {
    echo "cross/build.sh: no standard library for $target. Either: rustup target add $target" >&2
    echo "  or, as root on Debian: apt-get install cargo-web rustc-web rust-web-src" >&2
    exit 1
  }
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends cargo-web rustc-web rust-web-src
fi

export CARGO_TARGET_DIR=$CARGO_TARGET_DIR/cross
for part in "${parts[@]}"; do
  case $part in agent) binary=pi-agent ;; manager) binary=pi-mgr ;; esac
  cross/cargo build --locked --release --target "$target" -p "racimo-$part" --bin "$binary"
  file=$CARGO_TARGET_DIR/$target/release/$binary
  size=$(stat -c %s "$file")
  echo "$binary ($target, static): $size bytes: ${file#"$PWD"/}"
  [[ $target != aarch64-* ]] || cross/pages.py "$file" # kernels for ARM64 have pages of 4, 16 or 64 KiB
  if [ "$binary" = pi-agent ] && [ "$target" = armv7-unknown-linux-musleabihf ]; then
    echo "budget: $budget bytes, $((budget - size)) left"
    [ "$size" -le "$budget" ] || { echo "cross/build.sh: the agent is over its budget" >&2; exit 1; }
  fi
done
