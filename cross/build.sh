#!/bin/bash
# Builds the agent for a board, static (musl), and compares its size with the
# budget.
#
#   cross/build.sh TARGET [agent|manager]
#
# The linker and C compiler are zig's, from PyPI, in a venv below target/. The
# standard library for TARGET comes from rustup where it is installed
# (`rustup target add TARGET`); otherwise it is built from Debian's sources
# (packages cargo-web, rustc-web, rust-web-src), which needs no rustup target.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:?usage: cross/build.sh TARGET [agent|manager], e.g. armv7-unknown-linux-musleabihf}
part=${2:-agent}
case $target in
  armv7-unknown-linux-musleabihf | arm-unknown-linux-musleabihf | aarch64-unknown-linux-musl | x86_64-unknown-linux-musl) ;;
  *) echo "cross/build.sh: unknown target '$target'; known: armv7-unknown-linux-musleabihf arm-unknown-linux-musleabihf aarch64-unknown-linux-musl x86_64-unknown-linux-musl" >&2; exit 1 ;;
esac
case $part in
  agent) package=racimo-agent binary=pi-agent profile=small ;;
  manager) package=racimo-manager binary=pi-mgr profile=release ;;
  *) echo "cross/build.sh: unknown part '$part'; known: agent, manager" >&2; exit 1 ;;
esac
budget=$((2 * 1024 * 1024)) # bytes; of the armv7 agent

# Thumb-2 code is a quarter smaller than ARM code, and every ARMv7 runs it. Not ARMv6, which has Thumb-1 only.
flags=
[ "$target" = armv7-unknown-linux-musleabihf ] && flags="-C target-feature=+thumb-mode"
# Nothing unwinds: a panic ends the process.
flags="$flags -C force-unwind-tables=no"
# Messages of panics name the files of crates without the builder's directories.
cargo fetch --quiet --locked --target "$target"
for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/ /usr/lib/rustlib/src/rust/library/; do
  flags="$flags --remap-path-prefix=$sources="
done

target_dir=${CARGO_TARGET_DIR:-target}
venv=$PWD/$target_dir/zig-venv
if [ ! -x "$venv/bin/cargo-zigbuild" ]; then
  echo "cross: zig and cargo-zigbuild from PyPI into $venv"
  rm -rf "$venv"
  python3 -m venv "$venv" || { echo "cross/build.sh: python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
  "$venv/bin/pip" install --quiet ziglang==0.14.1 cargo-zigbuild==0.24.0
fi
export PATH="$venv/bin:$PATH"

arguments=(zigbuild --locked --profile "$profile" -p "$package" --bin "$binary" --target "$target" --target-dir "$target_dir/cross")
if [ -d "$(rustc --print target-libdir --target "$target" 2>/dev/null)" ]; then
  echo "cross: standard library from rustup"
  RUSTFLAGS="$flags" cargo-zigbuild "${arguments[@]}"
else
  if [ ! -d "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library" ] || [ ! -x /usr/bin/cargo ]; then
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || {
      echo "cross/build.sh: no standard library for $target. Either: rustup target add $target" >&2
      echo "  or, as root on Debian: apt-get install cargo-web rustc-web rust-web-src" >&2
      exit 1
    }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends cargo-web rustc-web rust-web-src
  fi
  echo "cross: standard library from Debian's rust-web-src ($(/usr/bin/rustc --version))"
  # RUSTC_BOOTSTRAP allows build-std on a stable compiler; zig links musl itself.
  features=()
  [ "$part" = agent ] && features=(-Zbuild-std-features=optimize_for_size)
  CARGO=/usr/bin/cargo RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="-C link-self-contained=no $flags" \
    cargo-zigbuild "${arguments[@]}" -Zbuild-std=std,panic_abort "${features[@]}"
fi

file=$target_dir/cross/$target/$profile/$binary
size=$(stat -c %s "$file")
echo "$binary ($target, static): $size bytes: $file"
if [ "$part" = agent ] && [ "$target" = armv7-unknown-linux-musleabihf ]; then
  echo "budget: $budget bytes, $((budget - size)) left"
  [ "$size" -le "$budget" ] || { echo "cross/build.sh: the agent is over its budget" >&2; exit 1; }
fi
