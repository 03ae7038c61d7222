# Sourced by launch/demo and launch/test: what they share. Not meant to be run by itself.
# Gets a fresh Debian machine from nothing to a built tree, says what it does, asks nothing, and stops
# at the first failure with what to do about it. Every step is skipped when there is nothing to do.

readonly packages=(
  openmpi-bin libopenmpi-dev libboost-program-options-dev libspdlog-dev libfmt-dev libgtest-dev
  libgmock-dev librapidcheck-dev libbenchmark-dev nlohmann-json3-dev libhwy-dev libhwloc-dev
  ninja-build ccache clang-format cmake pkg-config g++ clang libclang-rt-dev
)

say() { printf '== %s\n' "$*"; }

# die MESSAGE ADVICE
die() {
  printf 'annulus: %s\n         %s\n' "$1" "$2" >&2
  exit 1
}

# Names of the packages that are not installed. One dpkg-query call, so that a second run is quick.
missing_packages() {
  local installed package
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null || true)
  for package in "${packages[@]}"; do
    grep -qx "installed $package" <<<"$installed" || echo "$package"
  done
}

install_packages() {
  command -v dpkg-query >/dev/null ||
    die "dpkg-query not found: this set-up knows Debian and its relatives" \
      "install the equivalents of: ${packages[*]}, then run cmake and ninja by hand (README)"
  local missing
  mapfile -t missing < <(missing_packages)
  if [ ${#missing[@]} -eq 0 ]; then
    say "packages: all ${#packages[@]} are there"
    return
  fi
  local line="apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    die "${#missing[@]} packages are missing and this is not root" "run: sudo $line"
  fi
  say "packages: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q </dev/null ||
    die "apt-get update failed" "check the network and /etc/apt/sources.list, then run this again"
  $line </dev/null || die "apt-get install failed" "see the lines above; by hand: apt-get update && $line"
}

report_cuda() {
  local nvcc
  nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)
  if [ -n "$nvcc" ]; then
    say "CUDA: $("$nvcc" --version | sed -n 's/.*\(release [0-9.]*\).*/\1/p') at $nvcc"
  else
    say "CUDA: nvcc not found; none is needed"
  fi
}

# Open MPI refuses root, and more ranks than cores, unless told.
allow_mpi() {
  if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  export OMPI_MCA_rmaps_base_oversubscribe=1
}

# As many jobs as cores, but no more than memory holds at 1 GiB a compiler.
build_jobs() {
  local cores gib
  cores=$(nproc)
  gib=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  [ "$gib" -lt "$cores" ] && cores=$gib
  [ "$cores" -lt 1 ] && cores=1
  echo "$cores"
}

# Configured once: ninja runs cmake again by itself where a CMakeLists.txt changed.
build_tree() {
  if [ ! -f build/build.ninja ]; then
    say "configure: build/ (Release)"
    cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release >build.log 2>&1 </dev/null || {
      cat build.log >&2
      die "configure failed" "see the lines above; if build/ came from elsewhere, remove it and run this again"
    }
    mv build.log build/configure.log
  fi
  # Paths count from here, so that a clone in another folder finds what was compiled before.
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
  say "build: build/ on $(build_jobs) cores"
  cmake --build build -j "$(build_jobs)" </dev/null ||
    die "build failed" "see the first error above; after a fix run this again, it continues where it stopped"
}

set_up() {
  install_packages
  report_cuda
  allow_mpi
  build_tree
}
