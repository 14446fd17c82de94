"""`make run` and `make demo`: a whole system on this machine, from a checkout and its venv."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from typing import Any

import httpx2
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from deploy.system import System, SystemFailedError
from transcription_site import env as environment
from transcription_site.env import BASE_DIR

SAMPLES = BASE_DIR / "samples"
DEMO_SECONDS = 300

console = Console(highlight=False)


def run(system: System) -> None:
    """Start, say where everything is, stay until Ctrl-C or SIGTERM."""
    system.lock()
    console.print("Starting Verbatim …")
    system.start("admin")
    password = system.credentials["password"] or "(the one that you gave it)"
    for label, value in (
        ("URL", f"{system.url}/  (documentation: {system.url}/docs)"),
        ("login", f"admin, password {password}  (administration: {system.url}/admin/)"),
        ("token", system.credentials["token"]),
        ("audio", system.env.audio_place),
        ("logs", str(system.var / "log")),
    ):
        console.print(f"  {label:6}{value}", markup=False, soft_wrap=True)
    console.print("Ready. Ctrl-C stops everything.")
    if system.supervisor is not None:
        system.supervisor.wait()
    raise SystemFailedError(f"supervisord ended; see {system.var}/log/supervisord.log")


def demo(system: System) -> None:
    """Start from nothing, transcribe the samples over HTTP, print the transcript."""
    samples = json.loads((SAMPLES / "manifest.json").read_text())
    system.lock()
    for left in system.var.iterdir():
        if left.is_file():
            left.unlink()
        elif left.name != "run":  # the lock lies there
            shutil.rmtree(left)
    with console.status("Starting a private system: web server, workers, Redis …"):
        system.start("demo")
    console.print(f"It runs at {system.url}; sending {len(samples)} pieces of speech.")
    with system.client() as client:
        transcript = _transcribe(client, samples)
    if transcript["jobStatus"] != "completed":
        status = transcript["jobStatus"]
        raise SystemFailedError(f"the job ended as {status}: {_errors(transcript)}")
    console.print("\n[bold]Transcript[/bold]")
    console.print(transcript["transcription"], markup=False)
    console.print("\n[dim]What was said[/dim]")
    console.print(" ".join(sample["text"] for sample in samples), markup=False, style="dim")
    console.print()


def _transcribe(client: httpx2.Client, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Submit the samples as one job and follow it to its end."""
    with ExitStack() as stack:
        opened = [stack.enter_context((SAMPLES / sample["file"]).open("rb")) for sample in samples]
        files = [("audioChunks", file) for file in opened]
        answer = client.post("/transcribe", data={"title": "Demonstration"}, files=files)
    if answer.status_code != httpx2.codes.ACCEPTED:
        raise SystemFailedError(f"POST /transcribe answered {answer.status_code}: {answer.text}")
    address = f"/transcript/{answer.json()['jobId']}"
    deadline = time.monotonic() + DEMO_SECONDS
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("waiting", total=len(samples))
        while time.monotonic() < deadline:
            transcript: dict[str, Any] = client.get(address).raise_for_status().json()
            done = sum(chunk["status"] == "completed" for chunk in transcript["chunks"])
            progress.update(task, completed=done, description=f"{done} of {len(samples)} chunks")
            if transcript["jobStatus"] != "in_progress":
                return transcript
            time.sleep(0.25)
    raise SystemFailedError(f"the job did not end within {DEMO_SECONDS} s: {_errors(transcript)}")


def _errors(transcript: dict[str, Any]) -> str:
    errors = {c["error"]["detail"] for c in transcript["chunks"] if c["error"]}
    return "; ".join(sorted(errors)) or "no chunk names an error"


def main(mode: str) -> int:
    """Whatever happens, everything that was started is stopped before this returns."""
    try:
        env = environment.load()
    except environment.InvalidEnvironmentError as error:
        print(f"verbatim: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)
    var = env.var_dir.absolute()
    system = System(env, var if mode == "run" else var / "demo")
    try:
        {"run": run, "demo": demo}[mode](system)
    except KeyboardInterrupt:
        console.print("\nStopping …")
        return 0 if mode == "run" else 130
    except (SystemFailedError, httpx2.HTTPError, OSError) as error:
        print(f"verbatim: {error}", file=sys.stderr)
        return 1
    finally:
        system.stop(grace=85 if mode == "run" else 20)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("run", "demo"), help="stay, or show one job and stop")
    sys.exit(main(parser.parse_args().mode))
