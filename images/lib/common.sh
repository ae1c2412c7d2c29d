# shellcheck shell=bash
# What all of bake's and lay's parts use. Sourced.

# Whatever the builder's is: modes are the image's.
umask 022

# In a subshell it ends that; the shell above then ends too, and says no more.
die() { echo "${0##*/}: $*" >&2; exit $((BASH_SUBSHELL > 0 ? 65 : 1)); }
say() { echo "${0##*/}: $*"; }
mib() { echo $((($1 + 1048575) / 1048576)); }

# needs PROGRAM:PACKAGE…: all of them, or one message that names all that are missing.
needs() {
  local pair missing=()
  for pair; do command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}"); done
  [ ${#missing[@]} -eq 0 ] || die "programs are missing; on Debian: apt-get install ${missing[*]}"
}
