"""Day-two verbs as a program, over simulated resources, in both outputs."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from tests.support.cli import Cli

PROFILE = """
[network.lab]
backend = "fake"
[disk.data]
backend = "fake"
size = "1GiB"
[vm.guest]
backend = "fake"
disks = ["data"]
networks = ["lab"]
[vm.guest.fake]
log = ["one", "two \\u001b]0;title\\u0007\\u001b[31mred\\u202e", "three"]
[container.web]
backend = "fake"
image = "docker://web"
networks = ["lab"]
labels = { tier = "front" }
"""


@pytest.fixture
def up(cli: Cli) -> Cli:
    cli.ok("--profile", cli.profile(PROFILE))
    return cli


def phase(cli: Cli, ref: str) -> str:
    shown: str = json.loads(cli.ok("inspect", ref, "--json"))["status"]["phase"]
    return shown


def test_ls(up: Cli) -> None:
    statuses = json.loads(up.ok("ls", "--json"))
    assert [f"{item['ref']['kind']}/{item['ref']['name']}" for item in statuses] == [
        "container/web",
        "disk/data",
        "network/lab",
        "vm/guest",
    ]
    assert up.ok("ls", "--plain").split() == ["dev/container/web", "dev/disk/data", "dev/network/lab", "dev/vm/guest"]
    assert up.ok("ls", "-k", "vm").splitlines()[1].startswith("dev/vm/guest")
    assert json.loads(up.ok("ls", "-p", "other", "--json")) == []
    assert up.ok().splitlines()[0].startswith("RESOURCE")


def names(cli: Cli, *terms: str) -> list[str]:
    return [item["ref"]["name"] for item in json.loads(cli.ok("ls", "--json", *terms))]


def test_ls_with_a_filter(up: Cli) -> None:
    assert names(up, "kind:vm,container") == ["web", "guest"]
    assert names(up, "kind:vm", "state:running") == ["guest"]
    assert names(up, "state:running", "-k", "vm", "guest") == ["guest"]
    assert names(up, "label:tier=front") == ["web"]
    assert names(up, "!kind:vm") == ["web", "data", "lab"]
    assert names(up, "dev/", "--", "-kind:vm") == ["web", "data", "lab"]
    assert names(up, "--", "-f", "dvgst") == ["guest"]
    assert names(up, "10.") == ["web", "lab", "guest"]
    assert up.ok("ls", "--plain", "kind:disk") == "dev/disk/data\n"
    nothing = up.run("ls", "zzz")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "nothing matches zzz\n")
    ranked = up.ok("ls", "--plain", "--", "-f", "dl").split()
    assert ranked[0] == "dev/network/lab"


def test_a_wrong_filter_is_wrong_use(up: Cli) -> None:
    said = up.refused(64, "ls", "state:running", "kidn:vm")
    assert "the filter 'state:running kidn:vm' at character 15: there is no key 'kidn'" in said
    assert "hint: did you mean kind:vm?" in said
    assert "not a regular expression" in up.refused(64, "ls", "web(", "--json")
    assert "\x1b" not in up.refused(64, "ls", "a\x1b[31m:(")


def test_inspect(up: Cli) -> None:
    shown = json.loads(up.ok("inspect", "vm/guest", "--json"))
    assert shown["status"]["phase"] == "running"
    assert shown["desired"]["spec"]["disks"] == ["data"]
    text = up.ok("inspect", "dev/vm/guest")
    assert "state" in text
    assert "made from" in text


def test_each_action_and_its_refusal(up: Cli) -> None:
    for verb, after in (
        ("pause", "paused"),
        ("resume", "running"),
        ("stop", "stopped"),
        ("start", "running"),
        ("restart", "running"),
        ("kill", "exited"),
    ):
        records = up.records(verb, "guest")
        assert [record["event"] for record in records if record["event"] != "step.progress"] == [
            "version",
            "step.start",
            "step.end",
            "summary",
        ]
        assert records[-1]["resources"][0]["phase"] == after == phase(up, "vm/guest")
    assert "it is exited; pause needs it to be running" in up.refused(71, "pause", "guest")
    assert "its backend has no start" in up.refused(71, "start", "disk/data")


def test_one_failure_does_not_keep_the_others(up: Cli) -> None:
    done = up.run("stop", "disk/data", "web", "guest", "--grace", "1s")
    assert done.returncode == 71
    assert (phase(up, "web"), phase(up, "guest")) == ("stopped", "stopped")
    records = up.records("start", "disk/data", "web", code=71)
    assert [record["result"] for record in records if record["event"] == "step.end"] == ["failed", "done"]
    assert records[-1]["result"] == "failed"


def test_rm(up: Cli) -> None:
    assert "a disk is data" in up.refused(64, "rm", "data")
    assert "is used by dev/vm/guest" in up.refused(71, "rm", "data", "--purge", "--yes")
    up.ok("rm", "guest", "web")
    up.ok("rm", "data", "--purge", "--yes")
    assert up.ok("ls", "--plain").split() == ["dev/network/lab"]
    assert up.refused(64, "rm", "guest")


def test_a_name_almost_right_is_answered_with_the_right_one(up: Cli) -> None:
    assert "did you mean guest?" in up.refused(64, "stop", "gust")
    assert "did you mean" in up.refused(64, "logs", "vm/guess")


def test_logs(up: Cli) -> None:
    assert up.ok("logs", "guest", "-n", "1").splitlines()[-1] == "three"
    assert "\x1b[31mred" in up.ok("logs", "guest")  # a pipe gets it as it is
    records = [json.loads(line) for line in up.ok("logs", "guest", "--json").splitlines()]
    assert records[-1]["text"] == "three"
    assert records[-1]["ref"]["name"] == "guest"
    assert up.ok("logs", "guest", "-n", "0") == ""
    assert up.ok("logs", "guest", "-t", "-n", "1").startswith("20")
    assert up.refused(71, "logs", "disk/data")


@pytest.mark.parametrize(("args", "first"), [(("logs", "-f", "guest"), "one"), (("events", "-f"), "create")])
def test_following_ends_with_the_signal(up: Cli, args: tuple[str, ...], first: str) -> None:
    with up.started(*args) as process:
        assert process.stdout is not None
        assert first in process.stdout.readline().decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130


def test_following_ends_when_nobody_reads(up: Cli) -> None:
    with up.started("stats", "--watch", "--interval", "50ms") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(120) == 0


def test_events_follow_other_processes(up: Cli) -> None:
    with up.started("events", "-f", "-n", "1", "--json") as process:
        assert process.stdout is not None
        # The last thing that happened comes first: from here on, it follows.
        assert json.loads(process.stdout.readline())["verb"] != "restart"
        up.ok("restart", "web")
        line = json.loads(process.stdout.readline())
        assert (line["ref"], line["verb"], line["result"]) == ("dev/container/web", "restart", "done")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 143
    verbs = [json.loads(line)["verb"] for line in up.ok("events", "--json", "-n", "2").splitlines()]
    assert verbs[-1] == "restart"


def test_stats(up: Cli) -> None:
    table = up.ok("stats").splitlines()
    assert [line.split()[0] for line in table[1:]] == ["dev/container/web", "dev/vm/guest"]
    records = [json.loads(line) for line in up.ok("stats", "guest", "--json").splitlines()]
    assert records[0]["ref"]["name"] == "guest"
    assert records[0]["sample"]["memory_bytes"] > 0
    up.ok("stop", "guest")
    assert up.refused(71, "stats", "guest")
    assert up.refused(71, "stats", "lab")


def test_exec(up: Cli) -> None:
    assert up.ok("exec", "web", "--", "echo", "-n", "hi") == "-n hi\n"
    assert up.ok("exec", "web", "false", code=1) == ""
    assert up.ok("exec", "web", "--", "sh", "-c", "exit 42", code=42) == ""
    assert up.ok("exec", "-i", "web", "cat", stdin=b"from a pipe\n") == "from a pipe\n"
    assert up.ok("exec", "web", "cat", stdin=b"not passed on\n") == ""
    assert "A=1" in up.ok("exec", "-e", "A=1", "web", "env")
    assert up.ok("exec", "-w", "/srv", "web", "pwd") == "/srv\n"
    assert "(someone)" in up.ok("exec", "-u", "someone", "web", "id")
    done = up.run("exec", "web", "nonsense")
    assert (done.returncode, done.stderr) == (127, "sh: nonsense: not found\n")
    assert "-t needs a terminal" in up.refused(64, "exec", "-t", "web", "true")
    assert "'A' is not NAME=VALUE" in up.refused(64, "exec", "-e", "A", "web", "true")
    assert up.refused(71, "exec", "lab", "true")


def test_exec_with_records(up: Cli) -> None:
    shown = up.ok("exec", "web", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 3", code=3)
    records = [json.loads(line) for line in shown.splitlines()]
    assert {record["stream"]: record["text"] for record in records[:-1]} == {"stdout": "out\n", "stderr": "err\n"}
    assert records[-1] == {"exit_code": 3}


def test_exec_is_ended_by_a_signal(up: Cli) -> None:
    with up.started("exec", "web", "--", "sh", "-c", "echo begun; sleep 60") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 143


def test_console_on_pipes(up: Cli) -> None:
    with subprocess.Popen(
        up.argv("console", "web"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=up.environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"echo over; exit\n")
        process.stdin.flush()
        assert b"over" in process.stdout.read()
        assert process.wait(120) == 0


def test_backends_and_doctor(up: Cli) -> None:
    backends = json.loads(up.ok("backends", "--json"))
    assert {"kind": "vm", "backend": "fake"}.items() <= next(
        item for item in backends if item["kind"] == "vm" and item["backend"] == "fake"
    ).items()
    assert "fake" in up.ok("backends")
    probes = json.loads(up.run("doctor", "--json").stdout)
    assert {probe["kind"] for probe in probes} == {"network", "disk", "vm", "container", "sandbox"}
    assert all(probe["usable"] or probe["problems"] for probe in probes)


def test_schema(cli: Cli) -> None:
    assert json.loads(cli.ok("schema"))["title"] == "vmtui profile"
    assert json.loads(cli.ok("schema", "events"))["title"] == "vmtui events"
    assert json.loads(cli.ok("schema", "serve"))["title"] == "vmtui serve.toml"


def test_reap_is_quiet(up: Cli) -> None:
    assert up.ok("reap", "dev/vm/guest") == ""
    assert up.ok("reap", "dev/vm/gone") == ""
    up.refused(64, "reap", "guest")


def test_version_and_help(cli: Cli) -> None:
    assert cli.ok("--version") == cli.ok("-V")
    assert "exit codes:" in cli.ok("--help")
    assert cli.run("--help").stderr == ""


def test_a_state_directory_that_cannot_be_used(cli: Cli) -> None:
    said = cli.refused(71, "ls", env={"XDG_STATE_HOME": "/proc/nowhere"})
    assert said.startswith("error: cannot use")
    assert "/proc/nowhere" in said
    assert "hint: export XDG_STATE_HOME=" in said
