# Sourced by scripts that need a program written in Go.

# Builds a program from the Go module proxy into build/tools, unless it is there, and prints its path. Exit code 77: it
# cannot be had here; the reason is on stderr.
#   go_tool NAME PACKAGE VERSION SECONDS
go_tool() {
  local name=$1 package=$2 version=$3 patience=$4
  local tools=$PWD/build/tools
  if [[ ! -x $tools/$name ]]; then
    if ! command -v go >/dev/null; then
      echo "$name: skipped, Go is not installed (it is built with 'go install')" >&2
      exit 77
    fi
    mkdir -p "$tools"
    echo "$name: building $version with $(go env GOVERSION)" >&2
    if ! GOBIN=$tools timeout "$patience" go install "$package@$version" >"$tools/$name.log" 2>&1; then
      tail -n 5 "$tools/$name.log" >&2
      echo "$name: skipped, 'go install' failed; its last lines are above" >&2
      exit 77
    fi
  fi
  echo "$tools/$name"
}
