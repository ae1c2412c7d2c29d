# What packages.sh and agent.sh do alike.
exec 2>&1
set -eu
# dash leaves a signal's end without the one of EXIT.
trap 'exit 1' HUP INT TERM PIPE
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
# A board that has just started looks for news itself, and `apt-get update` and dpkg fail at once beside that. After 5 minutes
# they are tried, and say themselves who is in the way.
wait_for_locks() {
  left=300
  while [ "$left" -gt 0 ] && holder=$(lock_holder); do
    [ "$left" -lt 300 ] || echo "waiting for $holder"
    sleep 1
    left=$((left - 1))
  done
}
# What a power cut left half installed is finished first.
finish() {
  wait_for_locks
  [ -z "$(dpkg --audit; ls /var/lib/dpkg/updates)" ] || dpkg --force-confold --configure -a </dev/null
}
# Nothing that the board has makes room for it.
add() {
  wait_for_locks
  apt-get install -q -y --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@" </dev/null
}
