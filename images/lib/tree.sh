# shellcheck shell=bash
# What is laid over a board's root file system, packages apart. Sourced by bake, and by lay for image builders.

# tree_make TREE PROFILE POWER_SAVE FROM: FROM is images/.
tree_make() {
  local unit target
  cp -r "$4/files/." "$1/"
  chmod -R u=rwX,go=rX "$1" # a checkout's modes are its owner's
  if [ "$3" = on ]; then rm "$1/etc/NetworkManager/conf.d/91-racimo-wifi.conf"; fi
  # The links by which systemd starts units, as `systemctl enable` makes them.
  for unit in "$1"/usr/lib/systemd/system/* "$1"/etc/systemd/system/*; do
    [ -f "$unit" ] || continue
    target=$(sed -n 's/^WantedBy=//p' "$unit")
    mkdir -p "$1/etc/systemd/system/$target.wants"
    ln -s "${unit#"$1"}" "$1/etc/systemd/system/$target.wants/${unit##*/}"
  done
}

# tree_without_unit TREE UNIT
tree_without_unit() { rm -f "$1/etc/systemd/system/$2" "$1"/etc/systemd/system/*.wants/"$2"; }

# tree_without_packaged TREE DEB: what a package of ours brings below /usr/lib is not laid below /etc as well.
tree_without_packaged() {
  local file
  dpkg-deb --fsys-tarfile "$2" | tar -t >"$work/packaged"
  (cd "$1/etc" && find . -type f -printf '%P\n') | while IFS= read -r file; do
    if grep -qxF "./usr/lib/$file" "$work/packaged"; then rm "$1/etc/$file"; fi
  done
}

# The kernel's command line: the memory controller is off by the device tree otherwise (raspberrypi/linux#6980), the
# measuring of pressure by the kernel's configuration.
cmdline_words='cgroup_enable=memory psi=1'
# cmdline_with LINE: the line and those words that it lacks; it is one line for ever.
cmdline_with() {
  local line=${1%"${1##*[![:space:]]}"} word
  for word in $cmdline_words; do
    case " $line " in *" $word "*) ;; *) line="$line $word" ;; esac
  done
  printf '%s\n' "$line"
}

# fstab_noatime: fstab on standard input; file systems of the card are not written to for being read.
fstab_noatime() {
  awk '!/^[ \t]*#/ && ($3 == "ext4" || $3 == "vfat") && $4 !~ /noatime/ { $4 = $4 ",noatime" } { print }'
}

# dhcpcd_with FROM: dhcpcd.conf on standard input, with what it lacks.
dhcpcd_with() {
  local conf
  conf=$(cat)
  printf '%s\n' "$conf"
  grep -q '^denyinterfaces.* rc-\*' <<<"$conf" || cat "$1/dhcpcd.conf.append"
}

# image_release VERSION PROFILE POWER_SAVE BASE: what was made of what.
image_release() { printf 'version=%s\nprofile=%s\nwifi-power-save=%s\nbase=%s\n' "$@"; }

# racimo_toml FROM PROFILE: the file to fill in, for every computer's editor.
racimo_toml() { sed 's/$/\r/' "$1/racimo.toml.$2"; }

# toml_is_template FILE FROM: nobody has filled in anything.
toml_is_template() {
  local profile
  for profile in worker manager; do if racimo_toml "$2" "$profile" | cmp -s - "$1"; then return 0; fi; done
  return 1
}

# toml_settings FILE: what a board reads in it, as join-file tells it. False: why the board would not take it. (A subshell:
# what belongs to the board's programs stays there.)
toml_settings() (
  RACIMO_ROOT=$(mktemp -d)
  trap 'rm -rf "$RACIMO_ROOT"' EXIT
  mkdir "$RACIMO_ROOT/run"
  # shellcheck source=images/files/usr/lib/racimo/board.sh
  . "$here/files/usr/lib/racimo/board.sh"
  file=$1 library=$here/files/usr/lib/racimo
  if read_file; then printf '%s' "$settings"; else printf '%s\n' "$faults"; exit 1; fi
)

# toml_suits SETTINGS NAME PROFILE: the file is for boards of this profile.
toml_suits() {
  case $3/$(sed -n 's/^role\t//p' <<<"$1") in
    worker/manager) die "$2: role = \"manager\" is for an image of profile manager" ;;
    manager/manager | worker/*) ;;
    *) die "$2: on an image of profile manager it needs role = \"manager\", and no join line; or give another file to put there" ;;
  esac
}
