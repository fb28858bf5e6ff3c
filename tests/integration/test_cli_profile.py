"""`vmtui --profile` as a program, over simulated resources: every exit code, both outputs, signals."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support.cli import Cli, interrupt
from tests.support.golden import ROOT

DEV = """
[network.lab]
backend = "fake"

[disk.data]
backend = "fake"
size = "1GiB"

[vm.guest]
backend = "fake"
disks = ["data"]
networks = ["lab"]
depends_on = ["container/web"]
ready = { log = "is up", timeout = "20s" }
[vm.guest.fake]
log = ["guest is up"]

[container.web]
backend = "fake"
image = "docker://web"
networks = ["lab"]
ports = ["127.0.0.1:8080:80"]

[sandbox.hello]
backend = "fake"
module = "hello.wat"
ready = { exit_code = 0, interval = "20ms" }
[sandbox.hello.fake]
exit_after = "50ms"
"""
BOX = '[container.box]\nbackend = "fake"\nimage = "docker://x"\n'
SCHEMA = Draft202012Validator(json.loads((ROOT / "docs/schema/events.json").read_text()))


@pytest.fixture
def dev(cli: Cli) -> str:
    return cli.profile(DEV)


def resources(cli: Cli) -> list[str]:
    return [line.split()[0] for line in cli.ok("ls").splitlines()[1:]]


def of(records: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [record for record in records if record["event"] == event]


def test_up_again_and_down(cli: Cli, dev: str) -> None:
    first = cli.run("--profile", dev)
    assert first.returncode == 0, first.stderr
    table = first.stdout.splitlines()
    assert table[0].split() == ["RESOURCE", "BACKEND", "STATE", "UP", "ADDRESS", "ENDPOINT"]
    assert [line.split()[0] for line in table[1:]] == [
        "dev/container/web",
        "dev/disk/data",
        "dev/network/lab",
        "dev/sandbox/hello",
        "dev/vm/guest",
    ]
    assert "http://127.0.0.1:8080/" in first.stdout
    assert "exited 0" in first.stdout
    assert "5 ready, 5 changes" in first.stderr
    started = [line for line in first.stderr.splitlines() if " start " in line]
    assert started.index(next(line for line in started if "container/web" in line)) < started.index(
        next(line for line in started if "vm/guest" in line)
    )
    again = cli.run("--profile", dev)
    assert again.returncode == 0
    assert "5 ready, 0 changes" in again.stderr
    assert not [line for line in again.stderr.splitlines() if line.startswith("done")]
    down = cli.run("--profile", dev, "--down")
    assert down.returncode == 0
    assert "the disk stays" in down.stderr
    assert resources(cli) == ["dev/disk/data"]
    cli.ok("--profile", dev, "--down", "--purge", "--yes")
    assert cli.ok("ls") == ""
    assert "0 removed" in cli.run("--profile", dev, "--down").stderr


def test_records(cli: Cli, dev: str) -> None:
    records = cli.records("--profile", dev)
    for record in records:
        SCHEMA.validate(record)
    assert records[0]["event"] == "version"
    assert records[0]["schema"] == 1
    assert records[-1]["event"] == "summary"
    summary = records[-1]
    assert (summary["profile"], summary["result"], summary["exit_code"], summary["changes"]) == (
        "dev",
        "converged",
        0,
        5,
    )
    assert {f"{item['ref']['kind']}/{item['ref']['name']}": item["phase"] for item in summary["resources"]} == {
        "network/lab": "available",
        "disk/data": "available",
        "vm/guest": "running",
        "container/web": "running",
        "sandbox/hello": "exited",
    }
    assert [change["action"] for change in of(records, "plan")[0]["changes"]] == ["create"] * 5
    assert len(of(records, "step.start")) == len(of(records, "step.end")) == 8
    assert {record["result"] for record in of(records, "step.end")} == {"done"}
    assert {record["ref"]["name"] for record in of(records, "ready")} == {"lab", "data", "guest", "web", "hello"}
    done = cli.run("--profile", dev, "--json")
    assert done.stderr == ""


def test_plan_and_check(cli: Cli, dev: str) -> None:
    shown = cli.ok("--profile", dev, "--plan", code=2)
    assert "+ vm/guest (fake)" in shown
    assert shown.splitlines()[-1] == "dev: 5 to create, 0 unchanged"
    assert resources(cli) == []
    assert cli.records("--profile", dev, "--plan", code=2)[-1]["result"] == "changes"
    cli.ok("--profile", dev)
    assert cli.ok("--profile", dev, "--plan") == "dev: no changes\n"
    assert cli.records("--profile", dev, "--check")[-1]["result"] == "unchanged"
    cli.ok("stop", "web")
    assert cli.ok("--profile", dev, "--check", code=2) == "container/web: it is stopped\n"
    drifted = cli.records("--profile", dev, "--check", code=2)
    assert (drifted[-1]["result"], drifted[-1]["exit_code"]) == ("drifted", 2)
    cli.profile(DEV.replace('size = "1GiB"', 'size = "2GiB"'))
    shown = cli.ok("--profile", dev, "--plan", code=2)
    assert "~ disk/data" in shown
    assert "~ size: 1GiB → 2GiB" in shown


def test_only_brings_what_it_needs(cli: Cli, dev: str) -> None:
    cli.ok("--profile", dev, "--only", "web")
    assert resources(cli) == ["dev/container/web", "dev/network/lab"]
    cli.ok("--profile", dev, "--only", "hello")
    assert resources(cli) == ["dev/container/web", "dev/network/lab", "dev/sandbox/hello"]
    assert "'nothing' is not in it" in cli.refused(64, "--profile", dev, "--only", "nothing")


def test_recreate(cli: Cli, dev: str) -> None:
    cli.ok("--profile", dev)
    plan = of(cli.records("--profile", dev, "--recreate", "web"), "plan")[0]
    assert [(change["ref"]["name"], change["action"]) for change in plan["changes"]] == [("web", "recreate")]
    assert "add --yes" in cli.refused(64, "--profile", dev, "--recreate")
    assert of(cli.records("--profile", dev, "--plan"), "plan")[0]["changes"] == []
    cli.ok("--profile", dev, "--recreate", "--yes")


def test_data_is_never_lost_without_a_word(cli: Cli, dev: str) -> None:
    cli.ok("--profile", dev)
    for args in (("--profile", dev, "--down", "--purge"), ("down", "dev", "--purge"), ("rm", "disk/data", "--purge")):
        assert "add --yes" in cli.refused(64, *args, stdin=b"y\n")
    assert "dev/disk/data" in resources(cli)


def test_down_by_name_when_the_file_is_gone(cli: Cli, dev: str) -> None:
    cli.ok("--profile", dev)
    Path(dev).unlink()
    error = cli.refused(65, "--profile", dev, "--down")
    assert "vmtui down dev" in error
    assert "profiles that are: dev" in cli.refused(64, "down", "devv")
    cli.ok("down", "dev", "--only", "web")
    assert "dev/container/web" not in resources(cli)
    records = cli.records("down", "dev", "--purge", "--yes")
    assert (records[-1]["result"], records[-1]["profile"]) == ("converged", "dev")
    assert resources(cli) == []


def test_a_broken_profile_can_still_be_taken_down(cli: Cli, dev: str) -> None:
    cli.ok("--profile", dev)
    cli.profile(DEV + "\n[vm.other]\nkernl = 1")
    cli.refused(65, "--profile", dev)
    cli.ok("--profile", dev, "--down", "--purge", "--yes")
    assert resources(cli) == []


@pytest.mark.parametrize(
    "args",
    [
        ("--nonsense",),
        ("frobnicate",),
        ("--plan",),
        ("--profile", "x", "--plan", "--check"),
        ("--profile", "x", "--purge"),
        ("--profile", "x", "--timeout", "soon"),
        ("--profile", "x", "--on-failure", "cry"),
        ("start",),
        ("exec", "x"),
        ("ls", "--kind", "ship"),
        ("start", "nothing"),
        ("inspect", "dev/vm/nothing"),
    ],
)
def test_64_wrong_use(cli: Cli, args: tuple[str, ...]) -> None:
    assert "hint: " in cli.refused(64, *args)


def test_65_an_invalid_profile(cli: Cli) -> None:
    path = cli.profile('[vm.guest]\nbackend = "fake"\nmemry = "1GiB"')
    error = cli.refused(65, "--profile", path)
    assert error == f"error: {path}:3: vm.guest.memry: unknown key\nhint: did you mean 'memory'?\n"
    records = cli.records("--profile", path, code=65)
    assert [record["event"] for record in records] == ["version", "diagnostic", "summary"]
    assert (records[1]["code"], records[1]["where"]) == ("profile-invalid", f"{path}:3")
    assert (records[2]["exit_code"], records[2]["result"]) == (65, "failed")


def test_69_a_missing_capability(cli: Cli) -> None:
    assert "USABLE" in cli.run("doctor", env={"PATH": "/nonexistent"}).stdout
    done = cli.run("doctor", env={"PATH": "/nonexistent"})
    assert done.returncode == 69
    assert "mend it: " in done.stdout


def test_71_failed_and_rolled_back(cli: Cli) -> None:
    path = cli.profile(BOX + '[container.bad]\nbackend = "fake"\nimage = "x"\nfake = { fail_on = ["start"] }')
    error = cli.refused(71, "--profile", path)
    assert "start dev/container/bad: a scripted fault" in error
    assert cli.ok("ls") == ""
    records = cli.records("--profile", path, code=71)
    assert (records[-1]["result"], records[-1]["exit_code"]) == ("rolled-back", 71)
    assert "undone" in {record["result"] for record in of(records, "step.end")}
    assert [record["level"] for record in of(records, "diagnostic")] == ["error"]


def test_70_failed_and_kept(cli: Cli) -> None:
    path = cli.profile(BOX + '[container.bad]\nbackend = "fake"\nimage = "x"\nfake = { fail_on = ["start"] }')
    cli.refused(70, "--profile", path, "--on-failure", "keep")
    assert "dev/container/bad" in resources(cli)
    assert cli.records("--profile", path, "--on-failure", "keep", code=70)[-1]["result"] == "kept"


def test_75_another_one_works(cli: Cli, dev: str) -> None:
    cli.ok("ls")
    with (cli.paths.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("pid 1, a test")
        lock.flush()
        assert "another vmtui changes this workspace (pid 1, a test)" in cli.refused(75, "--profile", dev)
    cli.ok("--profile", dev)


NEVER = (
    BOX
    + '[vm.slow]\nbackend = "fake"\nready = { log = "never", timeout = "500ms" }\n'
    + 'fake = { log = ["one\\u001b[31m", "two"] }'
)


def test_124_not_ready_in_time(cli: Cli) -> None:
    path = cli.profile(NEVER)
    error = cli.refused(124, "--profile", path)
    assert "dev/vm/slow was not ready after 0.5 s: waited for its log to match 'never'" in error
    assert "  | one\n  | two\n" in error
    assert "\x1b" not in error
    assert cli.ok("ls") == ""
    records = cli.records("--profile", path, "--on-failure", "keep", "--timeout", "100ms", code=124)
    assert records[-1]["result"] == "kept"
    assert "after 0.1 s" in of(records, "diagnostic")[0]["message"]
    assert resources(cli) == ["dev/container/box", "dev/vm/slow"]


def test_a_job_that_fails_is_not_waited_for(cli: Cli) -> None:
    text = '[sandbox.job]\nbackend = "fake"\nmodule = "m"\nready.exit_code = 0\n'
    text += 'fake = { exit_after = "10ms", exit_code = %d }'
    error = cli.refused(71, "--profile", cli.profile(text % 3))
    assert "dev/sandbox/job ended with code 3 before it was ready" in error
    cli.ok("--profile", cli.profile(text % 0))


SLOW = (
    BOX + '[vm.slow]\nbackend = "fake"\ndepends_on = ["container/box"]\nfake = { hang_on = ["start"], hang_for = "1m" }'
)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_an_apply_is_cleaned_up_after(cli: Cli, number: int, code: int) -> None:
    with cli.started("--profile", cli.profile(SLOW)) as process:
        interrupt(process, number, after=b"start container/box")
        assert process.wait(120) == code
    assert cli.ok("ls") == ""


def test_a_signal_while_it_waits_is_cleaned_up_after(cli: Cli) -> None:
    path = cli.profile(BOX + 'ready = { log = "never" }')
    with cli.started("--profile", path) as process:
        interrupt(process, after=b"waiting")
        assert process.wait(120) == 130
    assert cli.ok("ls") == ""


def test_an_interrupted_stream_still_has_its_summary(cli: Cli) -> None:
    with cli.started("--profile", cli.profile(SLOW), "--json") as process:
        assert process.stdout is not None
        records = []
        for line in process.stdout:
            records.append(json.loads(line))
            last = records[-1]
            if last["event"] == "step.start" and (last["ref"]["name"], last["action"]) == ("slow", "start"):
                process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 143
    assert (records[-1]["event"], records[-1]["result"], records[-1]["exit_code"]) == ("summary", "interrupted", 143)
    assert cli.ok("ls") == ""


@pytest.mark.parametrize("json_output", [False, True])
def test_foreground_follows_logs_and_takes_all_down(cli: Cli, json_output: bool) -> None:
    path = cli.profile(
        DEV.replace('log = ["guest is up"]', 'ready_line = "late line"\nready_after = "1s"').replace("is up", ".")
    )
    with cli.started("--profile", path, "--foreground", *(["--json"] if json_output else [])) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            if not json_output and raw.startswith(b"vm/guest | "):
                break
            if json_output and (record := json.loads(raw))["event"] == "log" and record["ref"]["name"] == "guest":
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    assert resources(cli) == ["dev/disk/data"]


def test_a_reader_that_leaves_does_not_stop_an_apply(cli: Cli, dev: str) -> None:
    with subprocess.Popen(
        cli.argv("--profile", dev, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(120) == 0
        assert process.stderr.read() == b""
    assert len(resources(cli)) == 5


def test_kill_between_any_two_moments_leaves_what_a_second_run_mends(cli: Cli, dev: str) -> None:
    for delay in (0.15, 0.2, 0.25):
        with cli.started("--profile", dev) as process:
            time.sleep(delay)
            process.kill()
        cli.ok("--profile", dev)
        assert cli.ok("--profile", dev, "--plan") == "dev: no changes\n"
        cli.ok("down", "dev", "--purge", "--yes")
        assert resources(cli) == []


def test_two_profiles_may_use_the_same_names(cli: Cli, dev: str) -> None:
    cli.ok("--profile", dev)
    cli.ok("--profile", cli.profile(DEV.replace("8080", "8081"), "other"))
    assert len(resources(cli)) == 10
    assert "'guest' can mean dev/vm/guest, other/vm/guest" in cli.refused(64, "inspect", "guest")
    cli.ok("stop", "other/vm/guest")
    assert cli.ok("ls", "-p", "other").count("\n") == 6
    cli.ok("down", "other")
    assert cli.ok("--profile", dev, "--check") == ""
