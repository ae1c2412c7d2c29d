# shellcheck shell=bash
# What the stand-in's programs share. Sourced.

# sources_of SUITE: Debian's sources, a line each. MIRROR, MIRROR_SECURITY and WITHOUT_SECURITY may be set.
sources_of() {
  local mirror=${MIRROR:-http://deb.debian.org/debian}
  printf 'deb %s main\n' "$mirror $1" "$mirror $1-updates"
  [ -n "${WITHOUT_SECURITY:-}" ] || echo "deb ${MIRROR_SECURITY:-http://deb.debian.org/debian-security} $1-security main"
}
