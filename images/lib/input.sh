# shellcheck shell=bash
# The input: what kind of file it is, how large it will be, and a copy of it. It is only ever read. Sourced.

# input_kind FILE: img, xz or zip, by its first bytes; the name is for people.
input_kind() {
  case $(head -c 6 "$1" | od -An -tx1 | tr -d ' ') in
    fd377a585a00) echo xz ;;
    504b0304*) echo zip ;;
    1f8b* | 28b52ffd* | 425a68*) die "$1: compressed with gzip, zstd or bzip2; unpack it first (.img, .img.xz and .zip are taken)" ;;
    *) echo img ;;
  esac
}

# input_entry FILE: the one image in a .zip.
input_entry() {
  local entries
  entries=$(unzip -Z1 "$1" 2>/dev/null) || die "$1: damaged, or cut off: its list of files cannot be read"
  entries=$(grep '\.img$' <<<"$entries") || die "$1: no .img in this .zip"
  [ "$(wc -l <<<"$entries")" -eq 1 ] || die "$1: more than one .img in this .zip"
  echo "$entries"
}

# input_size FILE KIND: bytes when unpacked.
input_size() {
  local size
  case $2 in
    img) size=$(stat -L -c %s "$1") ;;
    xz) size=$(xz --robot --list "$1" 2>/dev/null | awk '$1 == "totals" { print $5 }') ;;
    zip) size=$(unzip -Z -l "$1" '*.img' 2>/dev/null | awk '$NF ~ /\.img$/ { print $4; exit }') ;;
  esac
  [[ ${size:-} =~ ^[1-9][0-9]*$ ]] || die "$1: damaged, or cut off: its size cannot be read"
  echo "$size"
}

# input_copy FILE KIND TO: unpacks it; blocks of zeros stay holes.
input_copy() {
  local shown=()
  [ ! -t 2 ] || shown=(--verbose)
  case $2 in
    img) cp --reflink=auto --sparse=always "$1" "$3" ;;
    xz) xz --decompress --stdout --threads=0 "${shown[@]}" "$1" | dd of="$3" bs=64K iflag=fullblock conv=sparse status=none ;;
    zip) unzip -p "$1" "$(input_entry "$1")" | dd of="$3" bs=64K iflag=fullblock conv=sparse status=none ;;
  esac || die "$1: damaged, or cut off: it does not unpack"
}
