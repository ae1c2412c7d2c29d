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
  [ "$(grep -c ' Running' <<<"$tasks")" -eq 3 ] && ! grep -q "^$board " <<<"$tasks"
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

say "The registry holds a small web image (busybox httpd); run it three times, within limits"
show pi-mgr service create --name web --replicas 3 --limit-memory 32M --limit-cpu 0.5 "$LAB_REGISTRY/web:latest"

say "The cluster"
show pi-mgr node ls
show pi-mgr service ls
show pi-mgr service ps web

tasks=$(wanted_tasks)
board=${tasks%% *}
number=${board#board}
say "The plug of $board is pulled: every process on it dies, its link goes down"
show "$tool" --lab "$lab" board "$number" power-off
wait_until "for its task to run elsewhere" moved_away
show pi-mgr node ls
show pi-mgr service ps web

say "The plug goes back in: $board boots from what is on its disk"
show "$tool" --lab "$lab" board "$number" power-on
wait_until "for $board to be ready" board_ready
show pi-mgr node ls
show pi-mgr service ls

cat <<HINTS

${bold}That was it; the lab goes on running.${plain} Go on with
  eval "\$(make -s lab-env LAB=$lab)"        # pi-mgr and docker now talk to the lab
  pi-mgr service scale web=6
  docker -H $DOCKER_HOST service ps web
  pi-mgr service create --name page --mode global --network host $LAB_REGISTRY/web:latest
  curl http://$LAB_BOARD_1_IP:8080/
  make lab-board LAB=$lab N=2 DO=cut          # heal, kill-agent, start-agent, power-off, power-on
  make lab-manager LAB=$lab DO=kill           # start
Later, a lab without the story: make lab BOARDS=3
Clean up:                       make demo-clean LAB=$lab
HINTS
