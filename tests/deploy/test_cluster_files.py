"""The shipped cluster files, without a cloud: Ray's schema, KubeRay's fields, no secret in any of them."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from acdis import config
from acdis.planning.cluster_file import of_file

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("cluster.yaml", "cluster.local.yaml")
#: What a wheel is built from.
WHEEL_FILES = {
    *("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"),
    *("platform", "ablations", "experiments"),
}

_CHECK = """
import sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
config = prepare_config(yaml.safe_load(open(sys.argv[1])))
validate_config(config)
print(sorted(config["available_node_types"]))
"""


def _tree(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return tree


@pytest.mark.parametrize("name", SHIPPED)
def test_ray_takes_it(name: str, tmp_path: Path) -> None:
    # On its own, since Ray's checker may write to the console and end the process.
    done = subprocess.run([sys.executable, "-c", _CHECK, name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((ROOT / name).read_text().replace("idle_timeout_minutes", "idle_minutes"))
    line = [sys.executable, "-c", _CHECK, str(wrong)]
    assert subprocess.run(line, cwd=ROOT, capture_output=True, text=True).returncode != 0


@pytest.mark.parametrize("name", SHIPPED)
def test_what_every_cluster_of_ours_has(name: str) -> None:
    tree = _tree(name)
    assert 5 <= tree["idle_timeout_minutes"] <= 60
    assert tree["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for local in tree["file_mounts"].values():
        assert local.startswith("~") or (ROOT / local).exists()
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert tree[commands][0] == "ray stop"
        assert "~/acdis/deploy/node.sh ray start" in tree[commands][1]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in tree["head_start_ray_commands"][1]


def test_on_a_cloud_the_head_trains_nothing_and_gpus_come_and_go() -> None:
    tree = _tree("cluster.yaml")
    head, gpu = tree["available_node_types"]["head"], tree["available_node_types"]["gpu"]
    assert (head["resources"]["CPU"], head["resources"]["GPU"]) == (0, 0)
    assert head["resources"]["driver"] > 0
    assert gpu["resources"]["GPU"] == 1
    assert gpu["min_workers"] == 0 < gpu["max_workers"] <= tree["max_workers"]
    assert of_file(ROOT / "cluster.yaml").nodes[0]["driver"] == head["resources"]["driver"]


def test_nodes_want_a_token_and_what_people_look_at_is_on_loopback() -> None:
    script = (ROOT / "deploy" / "node.sh").read_text()
    assert "export RAY_AUTH_MODE=token" in script
    assert "--dashboard-host=127.0.0.1" in script
    assert "acdis dashboard --port" in script  # on 127.0.0.1 unless told otherwise
    assert "0.0.0.0" not in script


@pytest.mark.parametrize(("given", "taken"), [({}, "/tmp"), ({"RAY_TMPDIR": "/scratch"}, "/scratch")])
def test_a_long_tmpdir_is_not_where_ray_puts_its_sockets(
    given: dict[str, str], taken: str, tmp_path: Path
) -> None:
    ray, token = tmp_path / "bin" / "ray", tmp_path / "token"
    ray.parent.mkdir()
    ray.write_text('#!/bin/sh\necho "$RAY_TMPDIR"\n')
    ray.chmod(0o755)
    token.write_text("secret")
    variables = {"ACDIS_VENV": str(tmp_path), "RAY_AUTH_TOKEN_PATH": str(token), "TMPDIR": f"/{'long/' * 20}"}
    done = subprocess.run(
        ["bash", str(ROOT / "deploy" / "node.sh"), "ray", "start"],
        env=os.environ | variables | {"RAY_HEAD_IP": "192.0.2.1"} | given,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.strip()) == (0, taken), done.stderr


@pytest.mark.parametrize("file", ["node.sh", "slurm.sh"])
def test_scripts_are_shell(file: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / "deploy" / file)], check=True)


def _sections(definition: str) -> dict[str, list[str]]:
    """Lines of an Apptainer definition by section, the header's under an empty name."""
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in definition.splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            sections[name] = []
        elif line.strip() and not line.startswith("#"):
            sections[name].append(line.strip())
    return sections


def test_the_apptainer_image_is_the_dockerfiles() -> None:
    docker = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    image = _sections((ROOT / "deploy" / "acdis.def").read_text())
    (base,) = re.findall(r"^FROM (.*)$", docker, re.M)
    assert image[""] == ["Bootstrap: docker", f"From: {base}"]
    post = "\n".join(image["post"])
    (packages,) = re.findall(r"apt-get install .*? && rm -rf \S+", docker)
    (installed,) = re.findall(r"^RUN (pip .*)$", docker, re.M)
    assert packages in post
    assert image["post"][-2:] == ["cd /opt/acdis", installed]
    assert image["environment"] == [f"export {line}" for line in re.findall(r"^ENV (.*)$", docker, re.M)]
    assert image["runscript"] == ['exec acdis "$@"']
    copied = [line.split() for line in image["files"]]
    assert {place for _, place in copied} == {"/opt/acdis/"}
    sources = {source for source, _ in copied}
    assert all((ROOT / source).exists() for source in sources)
    assert sources == {*WHEEL_FILES, "constraints.txt"}


@pytest.mark.parametrize("image", ["", "/images/acdis.sif"])
def test_in_an_image_all_of_slurms_script_runs_in_it(image: str, tmp_path: Path) -> None:
    """With stand-ins that write down how they are called: no Slurm and no Apptainer is here."""
    tools, log = tmp_path / "tools", tmp_path / "log"
    stand_ins = {
        "tools/scontrol": "printf 'a\\nb\\n'",
        "tools/srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
        "tools/apptainer": 'export INSIDE="$5"; shift 5; exec "$@"',
        "tools/seq": "echo 1",
        "tools/sleep": "",
        "tools/hostname": 'echo "${INSIDE:-host}: hostname" >> "$LOG"; echo 127.0.0.1',
        "tools/ray": 'echo "${INSIDE:-host}: ray $*" >> "$LOG"',
        # Its end is the end of all: not before the others have said their line.
        "tools/python": 'until [ "$(wc -l < "$LOG")" -ge 5 ]; do /bin/sleep 0.05; done; '
        'echo "${INSIDE:-host}: python $*" >> "$LOG"; exit 7',
        "deploy/node.sh": 'echo "${INSIDE:-host}: node.sh $*" >> "$LOG"',
    }
    for name, text in stand_ins.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path), "LOG": str(log)}
    variables |= {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "two", "ACDIS_IMAGE": image}
    line = ["bash", str(ROOT / "deploy" / "slurm.sh"), "train", "tiny.yaml"]
    done = subprocess.run(line, env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 7, done.stderr  # the command's own
    assert sorted(log.read_text().splitlines()) == sorted(
        f"{image or 'host'}: {said}"
        for said in (
            "node.sh setup",
            "ray get-auth-token --generate",
            "hostname",
            "node.sh ray start --head --block --node-ip-address=127.0.0.1",
            "node.sh ray start --block",
            "python experiments/main.py train tiny.yaml",
        )
    )


def test_at_the_end_of_slurms_time_the_command_stops_in_order(tmp_path: Path) -> None:
    """The batch script alone is told. srun, told to end, kills what it has started: so does this stand-in."""
    log = tmp_path / "log"
    stand_ins = {
        "tools/scontrol": "echo a",
        "tools/srun": 'while [[ "$1" == --* ]]; do shift; done; "$@" & trap "kill -KILL $!" TERM; wait; wait',
        "tools/seq": "echo 1",
        "tools/sleep": "",
        "tools/hostname": "echo 127.0.0.1",
        "tools/ray": "",
        "tools/python": 'trap \'echo stopped >> "$LOG"; exit 5\' TERM; echo started >> "$LOG"; '
        "while :; do /bin/sleep 0.05; done",
        "deploy/node.sh": "",
    }
    for name, text in stand_ins.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"PATH": f"{tmp_path / 'tools'}:{os.environ['PATH']}", "HOME": str(tmp_path), "LOG": str(log)}
    variables |= {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "a"}
    line = ["bash", str(ROOT / "deploy" / "slurm.sh"), "train", "tiny.yaml"]
    job = subprocess.Popen(line, env=variables, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while not log.exists():
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        job.terminate()
        assert job.wait(300) == 5
    finally:
        job.kill()
    assert log.read_text().splitlines() == ["started", "stopped"]


def test_no_secret_is_in_a_file() -> None:
    files = [ROOT / name for name in SHIPPED] + sorted((ROOT / "deploy").iterdir())
    secret = re.compile(r"(?i)(auth_token|password|secret|access_key)\w*\s*[:=]\s*['\"]?[A-Za-z0-9/+]{16,}")
    for file in files:
        assert not secret.search(file.read_text()), file
    assert secret.search("RAY_AUTH_TOKEN=0123456789abcdef0123")  # it can find one


def _specs() -> list[tuple[str, str]]:
    specs, experiments = (
        sorted(p.name for p in (ROOT / d).glob("*.yaml")) for d in ("ablations", "experiments")
    )
    experiments.remove("rfnet2020.yaml")  # it chooses RFNet: ACDIS's switches have no meaning there
    return [(spec, experiment) for spec in specs for experiment in experiments]


def test_every_spec_on_every_experiment_can_be_scheduled() -> None:
    """In a process of its own, which imports neither torch nor ray."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom acdis import config\nfrom acdis.ablation import search\n"
        "from acdis.ablation.selection import load_specs\nfrom acdis.planning import placement\n"
        "from acdis.errors import UserError\nfrom acdis.planning.cluster_file import of_file\n"
        "found = of_file(Path('cluster.yaml'))\n"
        f"for spec, experiment in {_specs()!r}:\n"
        "    file, base = Path('ablations', spec), Path('experiments', experiment)\n"
        "    if 'search' in config.read_yaml(file):\n"
        "        wanted = search.load(file, base, ())\n"
        "        placement.fit(spec, wanted.experiment(wanted.first).scaling, found)\n"
        "    else:\n"
        "        try:\n"
        "            specs = load_specs([file], base)\n"
        "        except UserError as refusal:\n"  # a table of methods on sides that one of them cannot take
        "            said = str(refusal)\n"
        "            assert spec.startswith('table1') and ('needs sides' in said or 'crop (' in said), said\n"
        "            continue\n"
        "        placement.fit_specs(specs, found)\n"
        "print([name for name in ('torch', 'ray', 'mlflow', 'monai') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert len(_specs()) >= 28


@pytest.fixture(scope="module")
def check() -> Callable[[Any], list[str]]:
    """What the schema says against a RayJob."""
    schema = json.loads((Path(__file__).parent / "rayjob.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return lambda tree: [f"{error.json_path}: {error.message}" for error in validator.iter_errors(tree)]


def test_the_rayjob_fits_kuberays_fields(check: Callable[[Any], list[str]]) -> None:
    assert check(_tree("deploy/rayjob.yaml")) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.shutdownAfterJobFinish", True),
        ("spec.ttlSecondsAfterFinished", "600"),
        ("spec.rayClusterSpec.authOptions.mode", "on"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.volume", []),
        ("spec.rayClusterSpec.workerGroupSpecs.0.replicas", "2"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.resources.limits.cpu", 8),
    ],
)
def test_a_wrong_field_is_found(check: Callable[[Any], list[str]], path: str, value: Any) -> None:
    tree = copy.deepcopy(_tree("deploy/rayjob.yaml"))
    *above, last = path.split(".")
    place: Any = tree
    for name in above:
        place = place[int(name)] if name.isdigit() else place[name]
    place[last] = value
    assert check(tree)


def test_the_rayjob_is_our_cluster() -> None:
    spec = _tree("deploy/rayjob.yaml")["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec["shutdownAfterJobFinishes"]
    assert cluster["authOptions"] == {"mode": "token"}
    pins = (ROOT / "constraints.txt").read_text()
    assert f"ray=={cluster['rayVersion']}\n" in pins
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert json.loads(json.loads(head["rayStartParams"]["resources"])) == {"driver": 16}
    experiment = yaml.safe_load((ROOT / "experiments" / "brats2020.yaml").read_text())
    assert workers["minReplicas"] == workers["maxReplicas"] == experiment["scaling"]["workers"]
    for group in (head, workers):
        volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        for container in group["template"]["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert "/dev/shm" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_a_job_without_kuberay_is_a_worker_of_the_rayjob() -> None:
    """Image, storage and room are the same; what it runs are words that the command line understands."""
    job, ray = _tree("deploy/job.yaml"), _tree("deploy/rayjob.yaml")["spec"]
    pod = job["spec"]["template"]["spec"]
    theirs = ray["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert pod["volumes"] == theirs["volumes"]
    (mine,), (other,) = pod["containers"], theirs["containers"]
    for key in ("image", "workingDir", "env", "resources", "volumeMounts"):
        assert mine[key] == other[key]
    assert pod["restartPolicy"] == "Never"
    words = [*mine["command"], *mine["args"]]
    assert words[:4] == ray["entrypoint"].split()[:4]
    experiment = config.load(ROOT / words[3], words[4:])
    assert (experiment.scaling.workers, experiment.scaling.gpu) == (1, True)


@pytest.mark.parametrize("server", ["", "http://mlflow.example:5000"])
def test_what_skypilot_runs(server: str, tmp_path: Path) -> None:
    """Its `run`, by bash: one command with storage, and MLflow's server only where one is named."""
    task = _tree("deploy/sky.yaml")
    python = tmp_path / "acdis-env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$ACDIS_HOME" "${MLFLOW_TRACKING_URI-none}"\n')
    python.chmod(0o755)
    given = task["envs"] | {"DATA": "s3://b/brats", "STORAGE": "s3://b/acdis", "MLFLOW_TRACKING_URI": server}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ACDIS_")}
    done = subprocess.run(
        ["bash", "-c", task["run"]],
        env=kept | given | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *words, home, uri = done.stdout.splitlines()
    assert (home, uri) == (f"{tmp_path}/acdis-home", server or "none")
    assert words[:3] == ["experiments/main.py", "train", "experiments/brats2020.yaml"]
    splits = ("train", "validation", "test")
    overrides = [*words[3:], f"data.root={tmp_path}", *(f"data.split.{part}={python}" for part in splits)]
    experiment = config.load(ROOT / words[2], overrides)
    assert experiment.scaling.storage == "s3://b/acdis"
    assert (experiment.scaling.workers, experiment.scaling.gpu) == (1, True)
    assert {"BRATS2020", "BRATS_SPLITS"} <= given.keys()
    assert "--constraint constraints.txt '.[all]'" in task["setup"]
