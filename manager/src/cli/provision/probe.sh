# Looks at a board and changes nothing. Out: KEY<TAB>VALUE lines, the last is "end". Arguments: versions of pi-agent that
# could be installed.
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
fact() { printf '%s\t%s\n' "$1" "$(printf %s "$2" | tr '\n\t' '  ')"; }
as_root=
if [ "$(id -u)" -eq 0 ]; then fact root yes; fact is-root yes
elif ! command -v sudo >/dev/null; then fact root no-sudo
elif sudo -n true 2>/dev/null; then fact root yes; as_root='sudo -n'
else fact root password; fi
os=$([ ! -r /etc/os-release ] || . /etc/os-release && printf '%s\t%s\t%s' "${ID:-}" "${VERSION_ID:-}" "${PRETTY_NAME:-}")
fact os "$(printf %s "$os" | cut -f 1)"
fact os-version "$(printf %s "$os" | cut -f 2)"
fact os-name "$(printf %s "$os" | cut -f 3)"
fact machine "$(uname -m)"
fact arch "$(dpkg --print-architecture 2>/dev/null)"
fact hostname "$(cat /proc/sys/kernel/hostname)"
[ ! -r /proc/device-tree/model ] || fact model "$(tr -d '\0' </proc/device-tree/model)"
[ ! -d /run/systemd/system ] || fact systemd yes
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  ! grep -qw memory /sys/fs/cgroup/cgroup.controllers || fact memory yes
elif awk '$1 == "memory" && $4 == 1 { found = 1 } END { exit !found }' /proc/cgroups 2>/dev/null; then fact memory yes; fi
for file in /boot/firmware/cmdline.txt /boot/cmdline.txt; do
  if [ -f "$file" ]; then fact cmdline "$file"; break; fi
done
fact disk "$(df -Pk /var 2>/dev/null | awk 'NR == 2 { print $4 }')"
dpkg-query -W -f='package\t${Package}=${Version}=${db:Status-Status}\n' containerd containerd.io runc crun nftables tini pi-agent 2>/dev/null
[ -z "$(dpkg --audit 2>/dev/null)" ] || fact half-installed yes
installed=$(dpkg-query -W -f='${Version}' pi-agent 2>/dev/null)
candidate=$(apt-cache policy pi-agent 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }')
[ -z "$candidate" ] || fact candidate "$candidate"
for version in "$@" "$candidate"; do
  [ -z "$version" ] || [ -z "$installed" ] || ! dpkg --compare-versions "$installed" lt "$version" || fact older-than "$version"
done
identity=/var/lib/racimo/agent/identity/cluster.json
if $as_root test -e $identity; then fact identity "$($as_root cat $identity)"; fi
if $as_root cat /etc/racimo/agent.toml /etc/racimo/board.env 2>/dev/null | grep -Eq '^(manager-socket *=|RACIMO_MANAGER_SOCKET=)'; then fact own-manager yes; fi
fact end yes
