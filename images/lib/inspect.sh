# shellcheck shell=bash
# Is this a Raspberry Pi OS image? Where are its parts? Every refusal names what was found. Sourced.

# inspect IMAGE NAME: sets boot_at, root_at, root_size (bytes), codename, image_arch, base. NAME is for messages.
inspect() {
  local image=$1 name=$2 table size
  [ "$(od -An -tx1 -j510 -N2 "$image" | tr -d ' ')" = 55aa ] || die "$name: no partition table: not a disk image"
  table=$(sfdisk --dump "$image" 2>/dev/null) || die "$name: its partition table cannot be read"
  grep -q '^label: dos' <<<"$table" || die "$name: the partition table is GPT; Raspberry Pi OS images have an MBR"
  read -r boot_at boot_size boot_type root_at root_size root_type < <(awk '
    / : start=/ { gsub(/[,=]/, " "); for (i = 1; i < NF; i++) if ($i ~ /^(start|size|type)$/) printf "%s ", $(i + 1) }' <<<"$table") || true
  [ "${root_type:-}" = 83 ] && [[ $boot_type =~ ^(b|c|e)$ ]] ||
    die "$name: expected two partitions, FAT and Linux; found types '${boot_type:-none}' and '${root_type:-none}'"
  boot_at=$((boot_at * 512)) boot_size=$((boot_size * 512)) root_at=$((root_at * 512)) root_size=$((root_size * 512))
  size=$(stat -c %s "$image")
  [ $((root_at + root_size)) -le "$size" ] && [ $((boot_at + boot_size)) -le "$size" ] ||
    die "$name: cut off: its partitions end at byte $((root_at + root_size)), the file at $size"
  fat_open "$image" "$boot_at"
  ext4_open "$image" "$root_at"
  for file in cmdline.txt config.txt; do
    fat_has "$file" || die "$name: no $file on the first partition: not a Raspberry Pi's boot partition"
  done
  [ "$(fat_read cmdline.txt | grep -c '[^[:space:]]')" -eq 1 ] || die "$name: cmdline.txt has more or less than one line"
  ext4_check || die "$name: the second partition is no ext4 file system, or it is not clean (taken from a card in use? e2fsck it first)"
  base=$(ext4_read /etc/rpi-issue | head -n 1)
  [[ $base = *'Raspberry Pi'* ]] || die "$name: no /etc/rpi-issue: not Raspberry Pi OS"
  codename=$(ext4_read /etc/os-release | sed -n 's/^VERSION_CODENAME=//p' | tr -d '"')
  case $codename in
    bookworm | trixie) ;;
    *) die "$name: Raspberry Pi OS '${codename:-of unknown version}'; bookworm and trixie are known" ;;
  esac
  ext4_read /var/lib/dpkg/status >"$work/status"
  image_arch=$(package_field "$work/status" dpkg Architecture)
  case $image_arch in
    arm64 | armhf) ;;
    *) die "$name: its packages are for '${image_arch:-nothing}', not arm64 or armhf" ;;
  esac
}

# package_field STATUS PACKAGE FIELD: of a package in dpkg's status file.
package_field() {
  awk -v package="$2" -v field="$3:" '
    /^Package: / { found = $2 == package }
    found && $1 == field { sub(/^[^ ]+ /, ""); print; exit }' "$1"
}
