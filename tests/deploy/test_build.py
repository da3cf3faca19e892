"""The gateway's Dockerfile, carried out instruction by instruction over this machine's own files.

A copy-on-write root in a mount namespace stands in for the base image, so the steps and the paths
are those of the image; the Python beneath is this one.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy import dockerfile
from tools import locks

BUILD_SECONDS = 580
_PREPARE = r"""
set -euo pipefail
mount --make-rprivate /
mount -t tmpfs tmpfs "$SCRATCH"
mkdir "$SCRATCH"/{upper,work,root}
mount -t overlay overlay \
  -o "lowerdir=/,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" "$SCRATCH/root"
export ROOT="$SCRATCH/root"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount --rbind /dev "$ROOT/dev"
mount --rbind /proc "$ROOT/proc"
rm -rf "$ROOT/app" "$ROOT/opt/venv"
# The base image has Python here, for everybody.
ln -sf "$PYTHON" "$ROOT/usr/local/bin/python"
for folder in $(python_folders); do chmod o+rx "$ROOT$folder"; done
"""
# The packages come over the network; the gateway then serves in one of its own.
_RUN_AS_NOBODY = r"""
ip link set lo up
mount -o remount,ro "$ROOT"
chroot --userspec="$USER_IDS" "$ROOT" setpriv --no-new-privs \
  env -i CANDOR_ALLOW_ANONYMOUS=true CANDOR_MODELS='["any"]' CANDOR_METRICS_PORT=8502 $IMAGE_ENV \
  bash -c "cd $WORKDIR && exec $ENTRYPOINT" &
pid=$!
cd /
"$PYTHON" -c '
import sys, time, urllib.request
for attempt in range(300):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:8501/healthz/live", timeout=2).read())
        break
    except OSError:
        time.sleep(0.2)
else:
    sys.exit("not live")
lines = urllib.request.urlopen("http://127.0.0.1:8502/metrics").read().decode().splitlines()
print([line for line in lines if "candor_build_info{" in line])
'
echo "uid $(awk '/^Uid/ {print $2}' /proc/$pid/status)"
echo "first $(tr '\0' ' ' < /proc/$pid/cmdline)"
touch "$ROOT/app/written" 2>&1 || echo "root is read-only"
kill -TERM $pid
wait $pid && echo "ended with 0"
"""


def can_unshare() -> bool:
    tools = all(map(shutil.which, ("unshare", "setpriv", "chroot", "ip")))
    if os.geteuid() != 0 or not tools:
        return False
    return subprocess.run(["unshare", "-mn", "true"], capture_output=True).returncode == 0


def build_lines(stage: dockerfile.Stage) -> list[str]:
    """The build stage as shell."""
    workdir = stage.all("WORKDIR")[0].text
    lines = [f'mkdir -p "$ROOT{workdir}"']
    for instruction in stage.instructions:
        if instruction.name == "COPY":
            source, target = instruction.words
            place = f'"$ROOT{workdir}/{target}"'
            lines.append(f'mkdir -p "$(dirname {place})" && cp -r {source} {place}')
        elif instruction.name == "RUN":
            step = shlex.quote(f"cd {workdir} && {instruction.text}")
            lines.append(f'chroot "$ROOT" /bin/sh -ec {step}')
    return lines


def image_environment(stage: dockerfile.Stage) -> str:
    text = " ".join(instruction.text for instruction in stage.all("ENV"))
    return text.replace("${VERSION}", "7.8.9")


@pytest.mark.slow
@pytest.mark.skipif(not can_unshare(), reason="needs root and namespaces")
def test_the_gateway_image_builds_and_serves_as_nobody(tmp_path: Path) -> None:
    build, final = dockerfile.read(locks.REPOSITORY / "deploy" / "Dockerfile.gateway")[1]
    python = Path(sys.base_prefix, "bin", "python3").resolve()
    folders = " ".join(str(folder) for folder in python.parents if str(folder) != "/")
    script = [
        f"python_folders() {{ echo {folders}; }}",
        _PREPARE,
        *build_lines(build),
        f"unshare -n -- bash -ec {shlex.quote(_RUN_AS_NOBODY)}",
    ]
    environment = {
        **{key: text for key, text in os.environ.items() if not key.startswith("PYTHON")},
        "SCRATCH": str(tmp_path),
        "PYTHON": str(python),
        "USER_IDS": final.all("USER")[0].text,
        "WORKDIR": final.all("WORKDIR")[0].text,
        "IMAGE_ENV": image_environment(final),
        "ENTRYPOINT": shlex.join(json.loads(final.all("ENTRYPOINT")[0].text)),
    }
    done = subprocess.run(
        ["unshare", "-m", "--", "bash", "-c", "\n".join(script)],
        env=environment,
        cwd=locks.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "uid 65532" in said
    assert "first python -m candor.gateway" in said
    assert 'candor_build_info{version="7.8.9"} 1.0' in said
    assert "root is read-only" in said
    assert "ended with 0" in said
