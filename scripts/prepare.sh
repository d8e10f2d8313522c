#!/bin/bash
# Make a virtual environment and see to what pip cannot install: Python's headers, a C++ compiler, liburing.
# Usage: prepare.sh VENV [PYTHON]. What is missing is installed when run as root on a Debian-like system, and otherwise
# named together with the command that installs it. Without liburing the build goes on, and says so.
set -euo pipefail
venv=$1
wanted=${2:-}

fail() {
  echo "setup: $*" >&2
  exit 1
}

can_install() { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; }

apt_is_fresh=no
install_packages() {
  if [ "$apt_is_fresh" = no ]; then
    apt-get update -qq >/dev/null 2>&1 || echo "setup: apt-get update failed; trying with the lists at hand" >&2
    apt_is_fresh=yes
  fi
  echo "setup: installing $*"
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null 2>&1
}

# need CHECK PACKAGES...: run the check; if it fails install the packages; if it fails still, stop.
need() {
  local check=$1 text=$2
  shift 2
  if "$check"; then return; fi
  if can_install && install_packages "$@" && "$check"; then return; fi
  fail "$text. Install it with: sudo apt-get install $*"
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local name
  for name in ${wanted:+"$wanted"} python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$name" >/dev/null && is_new_enough "$name"; then
      python=$name
      return 0
    fi
    if [ -n "$wanted" ]; then fail "PYTHON=$wanted is not a Python 3.11 or newer"; fi
  done
  return 1
}

has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }
has_headers() { [ -f "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]; }
has_compiler() { command -v "${CXX:-g++}" >/dev/null || command -v c++ >/dev/null; }
has_liburing() { echo '#include <liburing.h>' | "${CXX:-g++}" -E -x c++ - >/dev/null 2>&1; }

python=
need find_python "Python 3.11 or newer was not found (or name one: make PYTHON=/path/to/python3.12)" python3
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
need has_venv "$python has no venv module" "python$version-venv"
need has_headers "the headers of $python are missing" "python$version-dev"
need has_compiler "a C++20 compiler was not found" g++
if ! has_liburing; then
  if ! can_install || ! install_packages liburing-dev; then
    cat >&2 <<'TEXT'
setup: liburing is not installed: disk I/O will use threads with preadv and pwritev instead of io_uring, which is slower.
setup: for io_uring run `sudo apt-get install liburing-dev`, then `make clean setup`.
TEXT
  fi
fi

if ! [ -x "$venv/bin/python" ] || ! is_new_enough "$venv/bin/python"; then
  echo "setup: making $venv with $python ($version)"
  rm -rf "$venv"
  "$python" -m venv "$venv"
fi
