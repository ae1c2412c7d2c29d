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
[ -z "$(dpkg --audit 2>/dev/null; ls /var/lib/dpkg/updates)" ] || fact half-installed yes
if holder=$(lock_holder); then fact lock-holder "$holder"; fi
installed=$(dpkg-query -W -f='${Version}' pi-agent 2>/dev/null)
candidate=$(apt-cache policy pi-agent 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }')
[ -z "$candidate" ] || fact candidate "$candidate"
for version in "$@" "$candidate"; do
  [ -z "$version" ] || [ -z "$installed" ] || ! dpkg --compare-versions "$installed" lt "$version" || fact older-than "$version"
done
# Where the agent keeps its identity: what cannot be read for certain is told, so that nothing is joined over a node of others.
# The unit may name a place too, which `pi-agent join` would not see.
config=/etc/racimo/agent.toml data=/var/lib/racimo/agent
unit=$(systemctl cat pi-agent.service 2>/dev/null | grep -v '^[[:space:]]*[#;]')
lines=$(
  printf '%s\n' "$unit"
  # The last is ours: the unit that we bring reads it.
  printf '%s\nEnvironmentFile=/etc/racimo/board.env\n' "$unit" | sed -n 's/^[[:space:]]*EnvironmentFile[[:space:]]*=[[:space:]]*-\{0,1\}//p' | while read -r file; do
    # A file that is not there sets nothing.
    if $as_root test -e "$file"; then $as_root grep -v '^[[:space:]]*[#;]' -- "$file"; [ $? -lt 2 ] || echo unreadable-data-dir; fi
  done
)
if printf '%s\n' "$lines" | grep -Eq 'data-dir|DATA_DIR|--config|RACIMO_CONFIG'; then
  fact data-dir-unknown "the unit pi-agent.service, or a file of its environment, names a data-dir or a configuration file"
elif $as_root test -e $config; then
  text=$($as_root cat $config) || fact data-dir-unknown "$config cannot be read"
  found=$(printf '%s\n' "$text" | awk '
    { sub(/\r$/, ""); sub(/^[ \t]+/, "") }
    /^#/ { next }
    # Tables come after all that is not in one.
    /^\[/ { exit }
    # Lines in a long string are none of ours, and a key can be spelled with escapes.
    /"""/ || /\047\047\047/ || /^["\047][^=]*\\/ { odd = 1 }
    !/data-dir/ { next }
    /^data-dir[ \t]*=[ \t]*("[^"]*"|\047[^\047]*\047)[ \t]*(#.*)?$/ && !seen++ {
      sub(/^[^=]*=[ \t]*/, "")
      text = substr($0, 2)
      path = substr(text, 1, index(text, substr($0, 1, 1)) - 1)
      if (path ~ /^\/[A-Za-z0-9_.\/+-]*$/) next
    }
    { odd = 1 }
    END { if (odd) exit 1; print path }') || fact data-dir-unknown "the line data-dir in $config is not a plain one"
  data=${found:-$data}
fi
identity=$data/identity/cluster.json
if $as_root test -e "$identity"; then fact identity "$($as_root cat "$identity")"; fi
if $as_root cat /etc/racimo/agent.toml /etc/racimo/board.env 2>/dev/null | grep -Eq '^[[:space:]]*(manager-socket[[:space:]]*=|RACIMO_MANAGER_SOCKET=)'; then fact own-manager yes; fi
fact end yes
