# shellcheck shell=bash
# The boot partition, through mtools: nothing is mounted. Sourced.

export MTOOLS_SKIP_CHECK=1 # mtools wants geometries that no card has

fat_open() { fat=$1@@$2; }
fat_has() { mdir -b -i "$fat" "::$1" >/dev/null 2>&1; }
fat_read() { mtype -i "$fat" "::$1"; }
# fat_write LOCAL NAME
fat_write() { mcopy -o -i "$fat" "$1" "::$2" || die "cannot write $2 on the boot partition (is it full?)"; }
