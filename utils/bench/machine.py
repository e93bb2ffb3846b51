"""This machine, as its recordings and the bench tell it; no host name, no path.

torch is loaded only by what asks a device: the bench's line is told without it.
"""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from utils.files import ROOT

UNITS = ("amx_bf16", "amx_fp16", "avx512_bf16", "avx512_fp16", "avx_ne_convert", "bf16")


def _cpuinfo():
    "{field: value} of the first processor in /proc/cpuinfo; empty where there is none."
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def processor():
    "The processor's model name."
    named = _cpuinfo().get("model name")
    if not named and sys.platform == "darwin":
        ask = ["sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            named = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
        except OSError:
            named = None
    return named or platform.processor() or platform.machine()


def short_number_units():
    "Instructions of this processor for 16-bit numbers; None where it cannot be told."
    info = _cpuinfo()
    flags = info.get("flags", info.get("Features", "")).split()
    return [unit for unit in UNITS if unit in flags] if flags else None


def accelerator(device):
    "Name, memory and driver of the accelerator; None on a CPU."
    import torch

    if device.type == "mps":
        return {"name": f"{processor()} (MPS)"}
    if device.type != "cuda":
        return None
    seen = torch.cuda.get_device_properties(device)
    return {
        "name": seen.name,
        "memory_bytes": seen.total_memory,
        "capability": f"{seen.major}.{seen.minor}",
        "multiprocessors": seen.multi_processor_count,
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def _driver():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=20)
        return said.stdout.split("\n")[0].strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def clocks():
    "MHz, watts and degrees that nvidia-smi reads now; None where it cannot be asked."
    names = {"sm_mhz": "clocks.sm", "memory_mhz": "clocks.mem", "watts": "power.draw",
             "watts_at_most": "power.limit", "celsius": "temperature.gpu"}  # fmt: skip
    query = [f"--query-gpu={','.join(names.values())}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(
            ["nvidia-smi", *query], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    values = said.stdout.split("\n")[0].split(",")
    if said.returncode or len(values) != len(names):
        return None
    return {name: _number(value) for name, value in zip(names, values)}


def _number(text):
    "A float; None for what nvidia-smi does not know."
    try:
        return float(text)
    except ValueError:
        return None


def machine(dev):
    "What was measured: processor, cores, accelerator, versions; no host name, no path."
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "processor": processor(),
        "cores": cores or os.cpu_count(),
        "threads": torch.get_num_threads(),
        "short_number_units": short_number_units(),
        "device": dev.kind,
        "accelerator": dev.accelerator(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
    }


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def in_one_line():
    "Processor, cores, system and versions, in one line."
    versions = [f"Python {platform.python_version()}"]
    for package in ("numpy", "torch"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    cores = f"{os.cpu_count()} cores"
    return ", ".join([processor(), cores, platform.system(), *versions])


def commit():
    "The commit of this checkout, with a + when files have changed; None outside git."
    try:
        ask = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 20}
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **ask)
        if head.returncode:
            return None
        changed = subprocess.run(
            ["git", "--no-optional-locks", "status", "--porcelain"], **ask
        ).stdout
        return head.stdout.strip() + ("+" if changed.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return None
