# Installs packages by the board's own apt. Arguments: their names.
finish
wait_for_locks
apt-get update -q </dev/null
add "$@"
