# shellcheck shell=bash
# The packages that the image shall bring: our own, and what they need and the image lacks. Those come from the image's
# own apt sources, checked with its own keys, resolved against its own list of installed packages, by this machine's apt
# in directories of its own. Sourced.

# What a board needs; of "a|b" one is enough.
board_packages=('containerd|containerd.io' 'runc|containerd.io' crun nftables tini)

# debs_own DIRECTORY PACKAGE ARCH: the one package file of this name and architecture.
debs_own() {
  local found=() file
  for file in "$1/$2"_*_"$3".deb; do [ ! -f "$file" ] || found+=("$file"); done
  case ${#found[@]} in
    0) die "no package $2 for $3 in $1: make dist makes them; --debs (make image: DEBS=) says where they are" ;;
    1) ;;
    *) die "more than one package $2 for $3 in $1: ${found[*]##*/}; leave the right one" ;;
  esac
  [ "$(dpkg-deb -f "${found[0]}" Package Architecture 2>/dev/null | tr '\n' ' ')" = "Package: $2 Architecture: $3 " ] ||
    die "${found[0]}: not a package $2 for $3"
  echo "${found[0]}"
}

# debs_depends FILE: what it depends on, in board_packages' form.
debs_depends() { dpkg-deb -f "$1" Depends | tr ',' '\n' | sed 's/([^)]*)//g; s/:any//g; s/ //g; /^$/d'; }

is_installed() { [ "$(package_field "$work/status" "$1" Status)" = 'install ok installed' ]; }

# debs_missing GROUP…: the first of each group of which the image has none.
debs_missing() {
  local group name names
  for group; do
    IFS='|' read -ra names <<<"$group"
    for name in "${names[@]}"; do if is_installed "$name"; then continue 2; fi; done
    echo "${names[0]}"
  done | sort -u
}

# debs_fetch CACHE TO PACKAGE…: downloads the packages (files with a slash are only resolved) and all that they need.
debs_fetch() {
  local cache=$1 to=$2 file version sources=$work/apt/etc/sources.list.d keys=$work/apt/keys name
  shift 2
  mkdir -p "$work/apt/etc/"{preferences.d,apt.conf.d} "$sources" "$keys"
  ext4_read /etc/apt/sources.list >"$work/apt/etc/sources.list"
  for name in $(ext4_list /etc/apt/sources.list.d | grep -E '\.(list|sources)$' || true); do
    ext4_read "/etc/apt/sources.list.d/$name" >"$sources/$name"
  done
  # One cache for each set of sources: what was fetched for one image is there for the next.
  cache=$cache/$image_arch-$(find "$work/apt/etc" -type f -print0 | sort -z | xargs -0 cat | sha256sum | cut -c 1-16)
  debs_keys "$keys"
  mkdir -p "$cache/lists/partial" "$cache/archives/partial"
  local options=(-q -o "Dir::Etc=$work/apt/etc" -o "Dir::Etc::sourcelist=$work/apt/etc/sources.list" -o "Dir::Etc::sourceparts=$sources"
    -o "Dir::Etc::trustedparts=$keys" -o "Dir::Etc::trusted=/nonexistent" -o "Dir::State=$work/apt" -o "Dir::State::lists=$cache/lists"
    -o "Dir::State::status=$work/status" -o "Dir::Cache=$cache" -o "APT::Architecture=$image_arch" -o "APT::Architectures::=$image_arch"
    -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 -o Debug::NoLocking=1
    -o APT::Update::Post-Invoke::= -o APT::Update::Error-Mode=any -o APT::Get::AllowUnauthenticated=false)
  apt-get "${options[@]}" update >"$work/apt.log" 2>&1 || debs_failed "the image's apt sources cannot be read"
  if grep -q '^[WE]: .*\(not signed\|GPG error\|NO_PUBKEY\)' "$work/apt.log"; then debs_failed "the image's apt sources are not signed with its keys"; fi
  apt-get "${options[@]}" install -y --no-install-recommends --no-upgrade --download-only "$@" >>"$work/apt.log" 2>&1 ||
    debs_failed "packages cannot be had: $*"
  # The cache may hold others too: what belongs to this set?
  apt-get "${options[@]}" install -y --no-install-recommends --no-upgrade --simulate "$@" 2>>"$work/apt.log" |
    awk '$1 == "Inst" { version = $3 ~ /^\[/ ? $4 : $3; sub(/^\(/, "", version); print $2, version }' >"$work/chosen"
  while read -r name version; do
    # Our own are there already.
    ! compgen -G "$to/${name}_*.deb" >/dev/null || continue
    # apt writes the colon of an epoch as %3a.
    file=$(find "$cache/archives" -maxdepth 1 -name "${name}_${version/:/%3a}_*.deb")
    [ -n "$file" ] || debs_failed "apt did not fetch $name $version"
    cp "$file" "$to/"
  done <"$work/chosen"
}

debs_failed() {
  tail -n 8 "$work/apt.log" >&2
  die "$1"
}

# debs_keys TO: the image's keys, and the sources changed to name these. apt tells text from binary by the ending, which
# some images' .pgp leaves open.
debs_keys() {
  local directory file name kind
  for directory in /etc/apt/trusted.gpg.d /etc/apt/keyrings /usr/share/keyrings; do
    for file in $(ext4_list "$directory" | grep -E '\.(gpg|asc|pgp)$' || true); do
      ext4_read "$directory/$file" >"$work/key"
      [ -s "$work/key" ] || continue
      kind=gpg name=${file%.*}
      if grep -q '^-----BEGIN' "$work/key"; then kind=asc; fi
      mv "$work/key" "$1/$name.$kind"
      find "$work/apt/etc" -type f -exec sed -i "s,$directory/${file//./\\.},$1/$name.$kind,g" {} +
    done
  done
}
