# What the shell scripts share: where state goes, how a step is announced, how Debian packages are had.
# Sourced, never run. Everything made here lives under $DEV, which git ignores.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DEV=${DOCKAGE_DEV:-$ROOT/.dev}
case $DEV in /*) ;; *) DEV=$ROOT/$DEV ;; esac
export DOCKAGE_DEV=$DEV
# A run starts hundreds of Python processes: what they import is compiled once, also where the environment says never.
unset PYTHONDONTWRITEBYTECODE
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH

die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# step "what" command...: says it, does it, says how long it took; the output is shown only if it fails.
step() {
  local what=$1 began=$SECONDS log code
  shift
  mkdir -p "$DEV/log"
  log=$(mktemp "$DEV/log/step.XXXXXX")
  printf '%s ... ' "$what"
  # Not `if (...)`: a shell ignores set -e inside a condition, and a fault in the middle would pass.
  set +e
  (set -e; "$@") >"$log" 2>&1
  code=$?
  set -e
  if [ $code = 0 ]; then
    printf '%d s\n' $((SECONDS - began))
  else
    printf 'failed after %d s\n' $((SECONDS - began))
    tail -40 "$log" >&2
  fi
  rm -f "$log"
  return $code
}

# beside "what" command...: a step that goes on beside others; its line is written whole, when it has ended.
# together: waits for all of them, and fails if one did. They mostly wait for a mirror, each for its own packages.
BESIDE=()
beside() {
  (
    mkdir -p "$DEV/log"
    line=$(mktemp "$DEV/log/line.XXXXXX")
    trap 'cat "$line"; rm -f "$line"' EXIT
    step "$@" >"$line" 2>&1
  ) &
  BESIDE+=($!)
}
together() {
  local process code=0
  for process in "${BESIDE[@]}"; do wait "$process" || code=$?; done
  BESIDE=()
  return $code
}

# A process that still does something; the corpse of one that nobody buried does not count.
is_alive() { [ -n "$(tr -d '\0' <"/proc/$1/cmdline" 2>/dev/null)" ]; } 2>/dev/null

retry() {
  local attempt
  for attempt in 1 2 3; do
    "$@" && return 0
    sleep $((attempt * 2))
  done
  "$@"
}

# Stamps make a step a no-op until what it was made from changes.
hash_of() { cat "$@" | sha256sum | cut -c1-64; }
is_stamped() { [ "$(cat "$DEV/stamps/$1" 2>/dev/null)" = "$2" ]; }
stamp() { mkdir -p "$DEV/stamps" && printf '%s\n' "$2" >"$DEV/stamps/$1"; }

# suite_apt SUITE get|cache args...: apt for one Debian suite, with lists of its own. The machine's own
# sources, and faults in them, play no part.
suite_apt() {
  local suite=$1 tool=$2
  shift 2
  "apt-$tool" -q -o Dir::Etc::sourcelist="$DEV/apt/$suite.sources" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$DEV/apt/$suite" -o Dir::Cache="$DEV/apt/$suite-cache" \
    -o Dir::Cache::pkgcache=pkgcache.bin -o Dir::Cache::srcpkgcache=srcpkgcache.bin \
    -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}

# The mirror is one the machine is configured for: the first that has this suite, signed by Debian.
open_suite() {
  local suite=$1 uri
  mkdir -p "$DEV/apt/$suite/partial" "$DEV/apt/$suite-cache/archives/partial"
  for uri in $(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | sort -u); do
    printf '%s\n' 'Types: deb' "URIs: $uri" "Suites: $suite" 'Components: main' \
      'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' >"$DEV/apt/$suite.sources"
    if suite_apt "$suite" get -o APT::Update::Error-Mode=any update; then return 0; fi
  done
  rm -f "$DEV/apt/$suite.sources"
  return 1
}

has_package() { suite_apt "$1" cache show "$2" >/dev/null 2>&1; }

# pick_suite PACKAGE SUITE...: the first suite that can be had and has the package.
pick_suite() {
  local package=$1 suite
  shift
  for suite in "$@"; do
    if { [ -e "$DEV/apt/$suite.sources" ] && has_package "$suite" "$package"; } ||
      { retry open_suite "$suite" >&2 && has_package "$suite" "$package"; }; then
      echo "$suite"
      return 0
    fi
  done
  die "no Debian suite of ($*) with the package $package can be reached"
}

# download SUITE DIR PACKAGE...: the .deb files, afresh if the lists have grown old meanwhile.
download() {
  local suite=$1 dir=$2
  shift 2
  mkdir -p "$dir"
  (cd "$dir" && { suite_apt "$suite" get download "$@" || { open_suite "$suite" && retry suite_apt "$suite" get download "$@"; }; })
}
