# What the packages bring, used: run as root in a system that has just installed them.
fail() { echo "$1" >&2; exit 1; }

getent passwd refit | grep -q nologin || fail "no user refit, or it may log in"
[[ $(stat -c '%U %a' /etc/refit) == "refit 750" ]] || fail "/etc/refit is $(stat -c '%U %a' /etc/refit)"
grep -q 'ExecStart=/usr/bin/refit-server --config /etc/refit/refit-server.toml' /usr/lib/systemd/system/refit-server.service
[[ -L /etc/systemd/system/multi-user.target.wants/refit-server.service ]] || fail "the service does not start by itself"
dpkg-query -W -f='${Conffiles}\n' refit-server | grep -q /etc/refit/refit-server.toml || fail "the settings are no conffile"
for program in refit refit-server; do
  "$program" --version
  [[ -s /usr/share/man/man1/$program.1.gz && -s /usr/share/bash-completion/completions/$program ]] || fail "no manual of $program"
done

# The service as the unit runs it: as its user, with the packaged settings.
install -d -m 700 -o refit -g refit /var/lib/refit
setpriv --reuid refit --regid refit --init-groups refit-server --config /etc/refit/refit-server.toml --port-file /tmp/port 2>/tmp/log &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
refit status --connect-timeout 30 >/dev/null || { cat /tmp/log; fail "the service does not answer"; }
refit push --quiet --synthetic gemma4_tiny --version 1
refit pull --quiet --version latest --out /tmp/hf.safetensors
until refit versions | grep -q 'on disk'; do kill -0 $server; done
kill $server
wait $server || fail "the service ended with $?"
[[ -n $(ls /var/lib/refit) ]] || fail "nothing was kept in /var/lib/refit"
