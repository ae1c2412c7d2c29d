#!/usr/bin/env python3
"""The licences of what is linked into a program.

    licences.py PACKAGE TARGET    → text on standard output

In: what cargo says of PACKAGE's normal dependencies for TARGET, and the files beside their sources. Out: each crate
with its licence, then each text once, with the crates that it is of. Fails if a crate has no licence, or none of its
texts is known.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

# Not crates, but in every static program.
BESIDE = [
    ("musl (C library, from zig)", "MIT", "https://musl.libc.org; Copyright 2005-2020 Rich Felker, et al."),
    ("Rust's standard library", "MIT OR Apache-2.0", "https://www.rust-lang.org; Copyright The Rust Project Developers"),
    ("compiler-rt, libunwind (from zig)", "Apache-2.0 WITH LLVM-exception", "https://llvm.org; Copyright the LLVM Project contributors"),
]
FILES = re.compile(r"^(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(package, target):
    """Names and versions of what is linked in; not what only runs at build time."""
    lines = cargo("tree", "--locked", "-p", package, "-e", "normal,no-proc-macro", "--target", target, "--prefix", "none", "-f", "{p}")
    return {tuple(line.split()[:2]) for line in lines.splitlines() if line.strip()}


def main():
    package, target = sys.argv[1:]
    wanted = linked(package, target)
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    ours = set(metadata["workspace_members"])
    texts, rows, faults = {}, [], []
    for crate in sorted(metadata["packages"], key=lambda crate: (crate["name"], crate["version"])):
        name = f"{crate['name']} {crate['version']}"
        if (crate["name"], "v" + crate["version"]) not in wanted or crate["id"] in ours:
            continue
        if not crate["license"] and not crate["license_file"]:
            faults.append(f"{name}: no licence")
        rows.append((name, crate["license"] or crate["license_file"], crate["repository"] or ""))
        folder = Path(crate["manifest_path"]).parent
        files = sorted(file for file in folder.iterdir() if file.is_file() and FILES.match(file.name))
        for file in files:
            text = file.read_text(errors="replace").replace("\r\n", "\n").strip()
            texts.setdefault(re.sub(r"\s+", " ", text), (text, []))[1].append(f"{name} ({file.name})")
        if not files and not crate["authors"] and not crate["repository"]:
            faults.append(f"{name}: no licence text, no author")
    if faults or not rows:
        sys.exit("licences.py: " + "; ".join(faults or ["no dependency found"]))
    print(f"{package} for {target} is under the Apache License 2.0 and has in it:\n")
    for name, licence, where in BESIDE + rows:
        print(f"  {name}: {licence}" + (f"  <{where}>" if where else ""))
    print("\nCrates without a text of their own below are under the texts of the same name.")
    for text, crates in texts.values():
        print("\n" + "=" * 78 + "\n" + "\n".join(crates) + "\n" + "-" * 78 + "\n" + text)


main()
