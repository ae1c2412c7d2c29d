# shellcheck shell=sh
# What import and join share: the files, the status beside racimo.toml, the light. Sourced.
#
# RACIMO_ROOT stands before every path; tests set it. RACIMO_BOOT stands for the boot partition: `pi-mgr provision`, which
# brings these programs to boards whose image does not have them, keeps racimo.toml off the card.

root=${RACIMO_ROOT:-}
boot=${RACIMO_BOOT:-$root/boot/firmware}
file=$boot/racimo.toml
status_file=$boot/racimo-status.txt
library=$(dirname "$(readlink -f "$0")")
# A person writes it: a handful of lines. More is another file by mistake.
file_max=16384

# Says it on the console (standard output is both the journal and the console), and keeps it beside racimo.toml, with
# the ends of lines that every computer's editor shows. Writes only what is new: it is asked often, the card wears out.
status() {
  text=$(printf 'Racimo on this board (%s):\n\n%s\n' "$(cat "$root/proc/sys/kernel/hostname" 2>/dev/null || echo '?')" "$1" | sed 's/$/\r/')
  [ "$(cat "$status_file" 2>/dev/null)" != "$text" ] || return 0
  printf 'racimo: %s\n' "$1"
  printf '%s\n' "$text" | dd of="$status_file" conv=fsync 2>/dev/null ||
    printf 'racimo: cannot write %s\n' "$status_file"
}

# The board's light: fault (fast blinking), busy (heartbeat), ok (as it was).
light() {
  for led in "$root"/sys/class/leds/ACT "$root"/sys/class/leds/led0; do
    [ -w "$led/trigger" ] || continue
    # What stands in brackets is on; kept once.
    before=$root/run/racimo/led-before
    if [ ! -e "$before" ]; then
      mkdir -p "$root/run/racimo"
      sed 's/.*\[\(.*\)\].*/\1/' "$led/trigger" >"$before"
    fi
    case $1 in
      fault)
        echo timer >"$led/trigger"
        for delay in "$led/delay_on" "$led/delay_off"; do [ ! -w "$delay" ] || echo 100 >"$delay"; done ;;
      busy) echo heartbeat >"$led/trigger" ;;
      ok) cat "$before" >"$led/trigger" ;;
    esac
    return 0
  done
}

# Reads racimo.toml into $settings (KEY<TAB>VALUE lines; empty if nothing is filled in). False: it has faults, in $faults.
read_file() {
  settings='' faults=''
  [ "$(wc -c <"$file")" -le "$file_max" ] || { faults="it has more than $file_max bytes"; return 1; }
  case $(head -c 2 "$file" | od -An -tx1 | tr -d ' ') in
    fffe | feff) faults='it is saved as UTF-16; save it as UTF-8 (or ANSI)'; return 1 ;;
  esac
  errors=$(mktemp "$root/run/racimo-faults.XXXXXX")
  if settings=$("$library/join-file" "$file" 2>"$errors"); then rm -f "$errors"; return 0; fi
  faults=$(cat "$errors")
  rm -f "$errors"
  settings=''
  return 1
}

# The values of a key, one a line.
setting() { printf '%s\n' "$settings" | sed -n "s/^$1	//p"; }

# Tells of the faults that read_file found.
say_faults() {
  status "racimo.toml cannot be used:

$faults

Correct it here or on another computer; the board looks at it when it starts, or when it is saved on the board."
  light fault
}
