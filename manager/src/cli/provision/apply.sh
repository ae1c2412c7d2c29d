# Gives the board a racimo.toml and runs the programs that racimo's images run for it. Standard input: files, each after a
# line "SIZE NAME": the programs below lib/, and racimo.toml, which may have the token. Argument: join or settings.
exec 2>&1
set -eu
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
umask 077
# Programs cannot be run from /run, and the token shall not be written to the card.
library=$(mktemp -d /var/lib/racimo-provision.XXXXXX)
RACIMO_BOOT=$(mktemp -d /run/racimo-provision.XXXXXX)
RACIMO_KEEP=yes
export RACIMO_BOOT RACIMO_KEEP
# Whatever happens nothing of it stays, and a light that told of a fault of this file is as it was.
end() {
  if [ $? -ne 0 ] && [ -e "$library/board.sh" ]; then (. "$library/board.sh"; light ok) || true; fi
  rm -rf "$library" "$RACIMO_BOOT"
}
trap end EXIT
trap 'exit 1' HUP INT TERM PIPE
while read -r size name; do
  case $name in
    lib/*) head -c "$size" >"$library/${name#lib/}" ;;
    *) head -c "$size" >"$RACIMO_BOOT/$name" ;;
  esac
done
umask 022
chmod 755 "$library"/*
# Without it the agent does not see what racimo.toml says.
unit=/etc/systemd/system/pi-agent.service.d/90-racimo.conf
if ! cmp -s "$library/90-racimo.conf" "$unit"; then
  mkdir -p "${unit%/*}"
  cp "$library/90-racimo.conf" "$unit"
  systemctl daemon-reload
fi
settings() { cat /etc/hostname /etc/racimo/board.env 2>/dev/null || true; }
before=$(settings)
"$library/import"
case $1 in
  join) "$library/join" once ;;
  settings)
    # Stopping the agent stops no container.
    if [ "$(settings)" = "$before" ]; then echo unchanged; else systemctl restart pi-agent.service; fi ;;
esac
