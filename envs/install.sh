#!/bin/sh
# Install a locked stack and this package into the Python environment in use: sh envs/install.sh cpu|gpu [options of pip]
# TORCH_INDEX names another index for the CPU build of torch.
set -eu
cd "$(dirname "$0")/.."
kind=$1
shift

here=$(python -c 'import platform, sys; print(platform.system(), platform.machine(), "Python", "%d.%d" % sys.version_info[:2])')
case $here in
  "Linux x86_64 Python 3.11" | "Linux x86_64 Python 3.12") ;;
  *)
    echo "envs/install.sh: this is $here, and the locks are for Linux x86_64 with Python 3.11 or 3.12:" \
      "remove the environment and make it with one of these, for example by make install PYTHON=python3.11." >&2
    exit 1
    ;;
esac

install() {
  python -m pip --disable-pip-version-check --retries 1 install --quiet --no-deps "$@"
}

# Source distributions are built with the setuptools of the lock, not with whichever is the newest, so this works offline too.
install --require-hashes --requirement envs/build.lock "$@"
if [ "$kind" = cpu ]; then
  # By itself, so that the extra index is asked for nothing else. Where it cannot be reached, pip warns and looks elsewhere.
  install --require-hashes --requirement envs/torch-cpu.lock --extra-index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" "$@"
elif python -m pip show torch 2> /dev/null | grep -q '^Version: .*+cpu'; then
  # To pip 2.13.0+cpu satisfies torch==2.13.0, so it would stay.
  python -m pip uninstall --quiet --yes torch
fi
install --require-hashes --no-build-isolation --requirement "envs/$kind.lock" "$@"
install --no-build-isolation --editable . "$@"
