#!/bin/bash
# `make demo`: a cluster in action, told step by step. Every command shown is
# one that you can type yourself afterwards.
#
# In: LAB (the lab's name), LAB_TOOL (the lab program).
set -euo pipefail
lab=${LAB:-lab}
tool=${LAB_TOOL:?run it as: make demo}
moved_max=90 # seconds

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
step=0
say() { step=$((step + 1)); printf '\n%s%d. %s%s\n' "$bold" "$step" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; "$@"; }
failed() {
  local code=$?
  trap - ERR INT
  echo
  echo "The demo stopped at step $step. The lab is still there to look at (make lab-status LAB=$lab);" >&2
  echo "make demo-clean LAB=$lab ends it." >&2
  exit "$code"
}
# Waits until a function succeeds, with a dot each second.
wait_until() {
  local what=$1 begin=$SECONDS
  shift
  printf 'waiting %s ' "$what"
  until "$@"; do
    if [ $((SECONDS - begin)) -ge "$moved_max" ]; then
      printf '\n'
      echo "demo: waited $moved_max s in vain $what" >&2
      return 1
    fi
    printf '.'
    sleep 1
  done
  printf ' %d s\n' "$((SECONDS - begin))"
}
wanted_tasks() { pi-mgr service ps web --filter desired-state=running --format '{{.Node}} {{.CurrentState}}'; }
moved_away() {
  local tasks
  tasks=$(wanted_tasks) || return 1
  [ "$(grep -c ' Running' <<<"$tasks")" -eq 2 ] && ! grep -q "^$board " <<<"$tasks"
}
answers() { "$tool" --lab "$lab" curl "$1" 80 2>/dev/null; }
# Every board that has power answers, from this machine.
all_answer() {
  local n
  for n in "$@"; do answers "$n" >/dev/null || return 1; done
}
board_ready() {
  local nodes
  nodes=$(pi-mgr node ls --format '{{.Hostname}} {{.Status}}') || return 1
  grep -qx "$board Ready" <<<"$nodes"
}

say "A lab: three boards, a manager and a registry, each in its own network namespace"
"$tool" --lab "$lab" up --boards 3
trap failed ERR INT
eval "$("$tool" --lab "$lab" env)"

say "The registry holds a small web image (busybox httpd); run it twice, within limits, on port 80 of every board"
show pi-mgr service create --name web --replicas 2 --publish 80:8080 --limit-memory 32M --limit-cpu 0.5 "$LAB_REGISTRY/web:latest"

say "The cluster"
show pi-mgr node ls
show pi-mgr service ls
show pi-mgr service ps web

say "Every board answers, also the one that runs no task; asked several times, both tasks do"
wait_until "for all boards to answer" all_answer 1 2 3
for n in 1 2 3; do
  show "$tool" --lab "$lab" curl "$n" 80
  show "$tool" --lab "$lab" curl "$n" 80
done

tasks=$(wanted_tasks)
board=${tasks%% *}
number=${board#board}
say "The plug of $board is pulled: every process on it dies, its link goes down"
show "$tool" --lab "$lab" board "$number" power-off
wait_until "for its task to run elsewhere" moved_away
show pi-mgr node ls
show pi-mgr service ps web
others=()
for n in 1 2 3; do [ "$n" = "$number" ] || others+=("$n"); done
wait_until "for the other boards to answer" all_answer "${others[@]}"
for n in "${others[@]}"; do show "$tool" --lab "$lab" curl "$n" 80; done

say "The plug goes back in: $board boots from what is on its disk"
show "$tool" --lab "$lab" board "$number" power-on
wait_until "for $board to be ready" board_ready
show pi-mgr node ls
show pi-mgr service ls
wait_until "for $board to answer again" all_answer "$number"
show "$tool" --lab "$lab" curl "$number" 80

cat <<HINTS

${bold}That was it; the lab goes on running.${plain} Go on with
  eval "\$(make -s lab-env LAB=$lab)"        # pi-mgr and docker now talk to the lab
  pi-mgr service scale web=6
  docker -H $DOCKER_HOST service ps web
  curl http://$LAB_BOARD_1_IP/                # any board; N=3: $LAB_BOARD_3_IP
  pi-mgr network create back
  pi-mgr service create --name page --network back --publish 8080:8080 $LAB_REGISTRY/web:latest
  make lab-board LAB=$lab N=2 DO=cut          # heal, kill-agent, start-agent, power-off, power-on
  make lab-manager LAB=$lab DO=kill           # start
Later, a lab without the story: make lab BOARDS=3
Clean up:                       make demo-clean LAB=$lab
HINTS
