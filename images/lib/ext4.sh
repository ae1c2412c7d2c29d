# shellcheck shell=bash
# The root file system, through debugfs: nothing is mounted, nobody is root. Sourced.
#
# Files are written in one run of debugfs, and read back in another: debugfs's exit code says nothing.

ext4_open() { ext4="$1?offset=$2"; }
ext4_run() { debugfs -R "$1" "$ext4" 2>/dev/null; }
# ext4_read PATH: the content of a file, or of what a link leads to; nothing if there is none.
ext4_read() {
  local path=$1 target hops
  for hops in 1 2 3 4; do
    target=$(ext4_run "stat \"$path\"" | sed -n 's/^Fast link dest: "\(.*\)"$/\1/p')
    [ -n "$target" ] || break
    case $target in /*) path=$target ;; *) path=$(realpath -ms "${path%/*}/$target") ;; esac
  done
  ext4_run "cat \"$path\""
}
ext4_check() { e2fsck -fn "$ext4" >"$work/e2fsck" 2>&1; }
ext4_has() { ext4_run "stat \"$1\"" | grep -q '^Inode:'; }
ext4_list() { ext4_run "ls -p \"$1\"" | cut -d / -f 6 | grep -v '^\.\{0,2\}$' || true; }
# Bytes that are free for everybody but root.
ext4_free() {
  dumpe2fs -h "$ext4" 2>/dev/null |
    awk -F ': *' '/^Free blocks/ { free = $2 } /^Reserved block count/ { kept = $2 } /^Block size/ { size = $2 } END { printf "%d\n", (free - kept) * size }'
}

# ext4_lay TREE: lays the files, directories and links of TREE over the root; all root's, modes as in TREE. What is there
# already as it should be is not touched.
ext4_lay() {
  local tree=$1 path mode script=$work/debugfs-write
  : >"$script"
  mkdir -p "$work/there"
  # What is there: directories by stat, files by their content.
  (cd "$tree" && find . -mindepth 1 -type d -printf '/%P\n' | sort) >"$work/directories"
  sed 's/.*/stat "&"/' "$work/directories" >"$work/debugfs-read"
  debugfs -f "$work/debugfs-read" "$ext4" 2>/dev/null |
    awk '/^debugfs: stat / { path = substr($0, 15); gsub(/"/, "", path) } /^Inode:/ { print path }' | sort >"$work/directories-there"
  comm -23 "$work/directories" "$work/directories-there" | while read -r path; do
    mode=$(stat -c %a "$tree$path")
    printf 'mkdir "%s"\nsif "%s" mode 040%s\n' "$path" "$path" "$mode"
  done >>"$script"
  ext4_dump "$tree" "$work/there"
  while IFS=' ' read -r mode path; do
    if [ -e "$work/there$path" ] && cmp -s "$tree$path" "$work/there$path"; then continue; fi
    printf 'rm "%s"\nwrite "%s" "%s"\nsif "%s" mode 0100%s\nsif "%s" uid 0\nsif "%s" gid 0\n' \
      "$path" "$tree$path" "$path" "$path" "$mode" "$path" "$path"
  done < <(cd "$tree" && find . -type f -printf '%m /%P\n' | sort -k 2) >>"$script"
  while IFS=' ' read -r path target; do
    if ext4_run "stat \"$path\"" | grep -qF "Fast link dest: \"$target\""; then continue; fi
    printf 'rm "%s"\nsymlink "%s" "%s"\n' "$path" "$path" "$target"
  done < <(cd "$tree" && find . -type l -printf '/%P %l\n' | sort) >>"$script"
  [ -s "$script" ] || return 0
  debugfs -w -f "$script" "$ext4" >"$work/debugfs-log" 2>&1 || true
  rm -rf "$work/there"
  mkdir "$work/there"
  ext4_dump "$tree" "$work/there"
  while IFS= read -r path; do
    cmp -s "$tree$path" "$work/there$path" || die "$path was not written (see $(tail -n 1 "$work/debugfs-log"))"
  done < <(cd "$tree" && find . -type f -printf '/%P\n')
}

# ext4_dump TREE TO: what the image has in place of TREE's files.
ext4_dump() {
  local path
  (cd "$1" && find . -type d -printf '%P\n') | while IFS= read -r path; do mkdir -p "$2/$path"; done
  (cd "$1" && find . -type f -printf '/%P\n') | while IFS= read -r path; do
    printf 'dump "%s" "%s"\n' "$path" "$2$path"
  done >"$work/debugfs-dump"
  debugfs -f "$work/debugfs-dump" "$ext4" >/dev/null 2>&1 || true
}

# ext4_remove PATH…: files and links only.
ext4_remove() {
  [ $# -gt 0 ] || return 0
  printf 'rm "%s"\n' "$@" >"$work/debugfs-rm"
  debugfs -w -f "$work/debugfs-rm" "$ext4" >/dev/null 2>&1 || true
}
