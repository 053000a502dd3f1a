# An environment of Python packages from PyPI under build/. get_torch.sh and get_engine.sh source this, and set before:
#   what      what is to be had, for messages
#   venv      where
#   needed_gb disk that it takes, with what it unpacks
#   proof     a Python program that fails unless all of it is there

python=/usr/bin/python3
[[ -x $python ]] || python=python3

is_there() { [[ -x $venv/bin/python ]] && "$venv/bin/python" -c "$proof" 2>/dev/null; }

# Prints the reason. What was begun is removed.
give_up() {
  echo "No $what: $1. What needs it is skipped." >&2
  rm -rf "$venv"
  exit 77
}

# install_packages [--override REQUIREMENT] PACKAGE...: with uv, which need not be installed. --override: this one,
# whatever the packages ask for.
install_packages() {
  local free_kb override=
  if [[ $1 == --override ]]; then override=$2; shift 2; fi
  mkdir -p build
  free_kb=$(df --output=avail -k build | tail -n 1)
  ((free_kb >= needed_gb << 20)) || give_up "it needs $needed_gb GB of disk, there are $((free_kb >> 20))"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  echo "Installing $what from PyPI into $venv"
  echo "$override" >"$work/override.txt"
  { "$python" -m venv "$work/uv" && "$work/uv/bin/pip" install -q uv &&
    "$work/uv/bin/uv" venv -q --clear --python "$python" "$venv" &&
    timeout 900 "$work/uv/bin/uv" pip install -q --no-cache --python "$venv/bin/python" --override "$work/override.txt" "$@"; } \
    >"$work/log" 2>&1 || give_up "$(tail -n 1 "$work/log")"
  is_there || give_up "it cannot be imported"
}
