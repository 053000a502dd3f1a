# What is left after a purge: nothing but the user.
left=$(find / -xdev \( -path /proc -o -path /project -o -path /tmp -o -path /var/cache -o -path /var/lib/apt \) -prune -o -name '*refit*' -print |
  grep -vE '^/(run|root)/' || true)
[[ -z $left ]] || { echo "left behind: $left" >&2; exit 1; }
getent passwd refit >/dev/null
