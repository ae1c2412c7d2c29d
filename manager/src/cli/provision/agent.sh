# Installs the package that comes on standard input. Arguments: its SHA-256, its name, its version, its architecture.
directory=$(mktemp -d /var/tmp/racimo.XXXXXX)
trap 'rm -rf "$directory"' EXIT
file=$directory/$2.deb
cat >"$file"
printf '%s  %s\n' "$1" "$file" | sha256sum --check --quiet --status || { echo "the package arrived damaged"; exit 1; }
has=$(dpkg-deb -f "$file" Package Version Architecture | sed 's/^[A-Za-z]*: //' | tr '\n' ' ')
[ "$has" = "$2 $3 $4 " ] || { echo "the package is not what its file is called: it has $has"; exit 1; }
chmod 755 "$directory"
finish
add "$file"
