"""deploy/slurm.sh on the same hosts, with substitutes for Slurm's own commands: no Slurm is here.

The stand-in for `srun` does what the script relies on: it runs a command on one node with its caller's
variables and folder, and ends it when it is ended itself.
"""

from __future__ import annotations

import os
import sys

import pytest
from launched import ROOT, Cluster
from world import missing, wait_for

from acdis.cells import Cell

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif("ACDIS_SLURM" not in os.environ, reason="part of `make test-cluster` (ACDIS_SLURM=1)"),
]

SRUN = """#!/bin/bash
for word in "$@"; do
  case "$word" in
    --nodelist=*) node="${{word#*=}}"; shift ;;
    --*) shift ;;
    *) break ;;
  esac
done
variables=$(export -p | grep -E ' (ACDIS|RAY|MLFLOW)_| PATH=')
exec ssh -tt -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \\
  "root@$node" "$variables; cd '$PWD'; $(printf '%q ' "$@")" </dev/null
"""
SCONTROL = '#!/bin/bash\n[ "$1 $2 $3" = "show hostnames all[3]" ] && printf "head\\none\\n"\n'


def test_an_allocation_trains_on_all_its_nodes(cluster: Cluster) -> None:
    world = cluster.world
    for host in world:  # as after another user's job: nothing of the other cluster runs
        host.kill()
        host.boot()
    tools = world.shared / "bin"
    tools.mkdir(exist_ok=True)
    for name, text in (("srun", SRUN.format(key=world.key)), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    home = world.shared / "slurm"
    variables = {
        "PATH": f"{tools}:{world.desk.environment()['PATH']}",
        "SLURM_JOB_NODELIST": "all[3]",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "ACDIS_HOME": str(home),
        "ACDIS_VENV": sys.prefix,
        "ACDIS_RAY_OPTIONS": f"--object-store-memory={256 * 2**20}",
    }
    wait_for(lambda: world.desk.run(world.ssh_line(world["one"], "true")).returncode == 0, "ssh")
    words = [str(world.shared / "tiny.yaml"), "scaling.workers=2", "scaling.cpus_per_worker=2", "seed=5"]
    line = ["bash", str(ROOT / "deploy" / "slurm.sh"), "train", *words]
    done = world["head"].run(line, env=variables, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (home / "cells").iterdir()
    assert Cell(folder).state()["status"] == "done"
    assert (home / "mlflow.db").exists()
