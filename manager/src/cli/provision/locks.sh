# Which program uses apt or dpkg now. These are POSIX locks, which flock does not see, and fuser is not on every board; the
# kernel lists them. False: none does.
lock_holder() {
  for lock in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock /var/cache/apt/archives/lock; do
    inode=$(stat -c %i "$lock" 2>/dev/null) || continue
    pid=$(awk -v inode="$inode" '$2 == "POSIX" && $4 == "WRITE" && $6 ~ ":" inode "$" { print $5; exit }' /proc/locks)
    [ -z "$pid" ] || { cat "/proc/$pid/comm" 2>/dev/null || echo "process $pid"; return 0; }
  done
  return 1
}
