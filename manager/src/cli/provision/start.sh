# Makes sure that containerd and the agent run, and stay. Says which it started.
exec 2>&1 </dev/null
set -eu
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
for unit in containerd.service pi-agent.service; do
  if ! systemctl --quiet is-active "$unit"; then
    systemctl start "$unit"
    echo "started ${unit%.service}"
  fi
done
# One that ends at once is started again every 2 s: is it the same a moment later?
pid() { systemctl show --property=MainPID pi-agent.service; }
first=$(pid)
sleep 3
if ! systemctl --quiet is-active pi-agent.service || [ "$(pid)" != "$first" ]; then
  echo "pi-agent does not stay up:"
  journalctl --unit=pi-agent.service --lines=6 --output=cat --no-pager || true
  exit 1
fi
